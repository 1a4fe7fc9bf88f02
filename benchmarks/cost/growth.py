"""How the cost of a step grows with the number of layers."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.cost.parts import LOG_EVERY, PARTS, Parts
from benchmarks.cost.synthetic import Run
from lightning_gradwatch.together import STEPS

#: Steps of a warm-up, the first writing to the loggers among them, and of a cycle: what looks
#: closer or logs comes once in it.
WARM_UP, CYCLE = 60, 50


#: More than the caches of most machines have room for.
_ELSEWHERE = np.zeros(2**23)


@dataclass(frozen=True)
class Cost:
    """CPU microseconds of one step.

    Attributes:
        whole: By part, mean over a cycle of 50 steps, those that look closer included.
        usual: By part, mean over the steps that neither look closer nor log.
        detectors: By detector, mean over a cycle.
    """

    whole: dict[str, float]
    usual: dict[str, float]
    detectors: dict[str, float]


def clear_caches() -> None:
    """Do what a training step does to the caches before its gradients are looked at."""
    np.add(_ELSEWHERE, 1.0, out=_ELSEWHERE)


def cost(layers: int, cycles: int, told: Callable[[int], None] = lambda _: None) -> Cost:
    """Measure one size; each figure is the median over the cycles.

    Args:
        layers: With a weight and a bias each.
        cycles: Of 50 steps.
        told: Called with the number of steps just made.
    """
    run = Run(layers)
    whole: dict[str, list[float]] = {part: [] for part in PARTS}
    usual: dict[str, list[float]] = {part: [] for part in PARTS}
    detectors: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        parts = Parts(Path(folder))
        for sample in run.samples(0, WARM_UP):
            parts.step(sample)
        for cycle in range(cycles):
            parts.take()
            start = WARM_UP + cycle * CYCLE
            steps: dict[str, list[float]] = {part: [] for part in PARTS}
            by_detector: dict[str, float] = {}
            ordinary: list[int] = []
            for i, sample in enumerate(run.samples(start, start + CYCLE)):
                if i % STEPS == 0:  # so many are judged in a row
                    clear_caches()
                parts.step(sample)
                if sample.flow is None and sample.update is None and (sample.step + 1) % LOG_EVERY:
                    ordinary.append(i)
                for name, seconds in parts.by_detector.items():
                    by_detector[name] = by_detector.get(name, 0.0) + seconds
                for part, seconds in parts.take().items():
                    steps[part].append(1e6 * seconds)
            for part, taken in steps.items():
                whole[part].append(statistics.mean(taken))
                usual[part].append(statistics.mean(taken[i] for i in ordinary))
            for name, seconds in by_detector.items():
                detectors.setdefault(name, []).append(1e6 * seconds / CYCLE)
            told(CYCLE)
        parts.close()
    return Cost(
        *({k: statistics.median(v) for k, v in d.items()} for d in (whole, usual, detectors))
    )


@dataclass(frozen=True)
class Growth:
    """A straight line through costs, and how the largest sizes grow.

    Attributes:
        fixed: Microseconds that a step costs whatever the number of layers.
        per_layer: Microseconds that a layer adds.
        exponent: By which the cost grows from the second largest size to the largest: 1 is linear.
    """

    fixed: float
    per_layer: float
    exponent: float

    def __str__(self) -> str:
        """Return it as a formula."""
        return f"{self.fixed:.0f} + {self.per_layer:.3f} x layers"


def growth(layers: Sequence[int], costs: Sequence[float]) -> Growth:
    """Fit a line, every size with the same relative weight.

    Args:
        layers: At least two sizes, ascending.
        costs: Microseconds at each, all positive.

    Example:
        >>> found = growth([100, 1000, 10000], [60.0, 510.0, 5010.0])
        >>> str(found), round(found.exponent, 2)
        ('10 + 0.500 x layers', 0.99)
    """
    # Least squares of (fixed + per_layer * n) / cost = 1.
    rows = [(1.0 / c, n / c) for n, c in zip(layers, costs, strict=True)]
    aa, ab = sum(a * a for a, _ in rows), sum(a * b for a, b in rows)
    bb = sum(b * b for _, b in rows)
    sa, sb = sum(a for a, _ in rows), sum(b for _, b in rows)
    divisor = aa * bb - ab * ab
    fixed, per_layer = (sa * bb - sb * ab) / divisor, (sb * aa - sa * ab) / divisor
    if fixed < 0:
        fixed, per_layer = 0.0, sb / bb
    exponent = math.log(costs[-1] / costs[-2]) / math.log(layers[-1] / layers[-2])
    return Growth(fixed, per_layer, exponent)
