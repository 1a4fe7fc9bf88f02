"""From measured steps to figures: ratios to plain training, and how far they can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.cost.lane import Step
from benchmarks.cost.variants import AGAIN, PLAIN, VARIANTS

Curve = npt.NDArray[np.float64]

#: Parts of a round that are compared with one another.
PARTS = 5

#: The steps of each variant that were alive together in one round.
Group = dict[str, list[Step]]


def cpu(step: Step) -> float:
    """CPU seconds of a step."""
    return step.cpu


def wall(step: Step) -> float:
    """Seconds of a step on the clock."""
    return step.wall


def inside(step: Step) -> float:
    """CPU seconds that a stopwatch within the step counted."""
    return step.inside


def curve(runs: Sequence[Sequence[Step]], value: Callable[[Step], float]) -> Curve:
    """Return each step of the window in seconds, the median over the rounds.

    The first step of a turn counts only where a step was never anything else.

    Args:
        runs: The steps of one variant in each round, equally many.
        value: What to take of a step.
    """
    points = []
    for same in zip(*runs, strict=True):
        warm = [step for step in same if not step.first] or same
        points.append(float(np.median([value(step) for step in warm])))
    return np.array(points)


@dataclass(frozen=True)
class Row:
    """One variant of one model.

    Attributes:
        usual: CPU time of the median step, seconds.
        whole: Mean CPU time of all steps, those included that look closer, log or write, seconds.
        usual_ratio: The same to plain training of the same rounds.
        whole_ratio: The same of `whole`.
        wall_ratio: Median step on the clock, to plain training.
        inside: What a stopwatch within the step counted, mean over all steps, seconds.
        inside_usual: The same of the median step.
        steps: CPU time step by step, seconds.
    """

    usual: float
    whole: float
    usual_ratio: float
    whole_ratio: float
    wall_ratio: float
    inside: float
    inside_usual: float
    steps: Curve


@dataclass(frozen=True)
class Sheet:
    """All rows of one model.

    Attributes:
        rows: By variant.
        spread: How far a ratio of whole times may be off, judged by the control.
        usual_spread: The same for usual steps.
        wall_spread: The same on the clock.
    """

    rows: dict[str, Row]
    spread: float
    usual_spread: float
    wall_spread: float


def sheet(rounds: Sequence[Sequence[Group]]) -> Sheet:
    """Work out the figures of one model from its rounds."""
    groups = [group for found in rounds for group in found]
    names = [name for name in VARIANTS if any(name in group for group in groups)]
    rows = {name: _row(name, [g for g in groups if name in g]) for name in names}
    return Sheet(
        rows,
        _spread([_pair(g, cpu) for g in groups], np.mean, len(rounds)),
        _spread([_pair(g, cpu) for g in groups], np.median, len(rounds)),
        _spread([_pair(g, wall) for g in groups], np.median, len(rounds)),
    )


def _row(name: str, groups: Sequence[Group]) -> Row:
    own = [group[name] for group in groups]
    plain = [group[PLAIN] for group in groups]
    steps, base = curve(own, cpu), curve(plain, cpu)
    clock, clock_base = curve(own, wall), curve(plain, wall)
    marks = curve(own, inside)
    usual = float(np.median(steps))
    # What comes once in a period longer than the window weighs less than it does in the window.
    weight = min(1.0, len(steps) / VARIANTS[name].period)
    whole = usual + (float(np.mean(steps)) - usual) * weight
    return Row(
        usual=usual,
        whole=whole,
        usual_ratio=usual / float(np.median(base)),
        whole_ratio=whole / float(np.mean(base)),
        wall_ratio=float(np.median(clock)) / float(np.median(clock_base)),
        inside=float(np.mean(marks)),
        inside_usual=float(np.median(marks)),
        steps=steps,
    )


def _pair(group: Group, value: Callable[[Step], float]) -> tuple[Curve, Curve]:
    return curve([group[AGAIN]], value), curve([group[PLAIN]], value)


def _spread(
    pairs: Sequence[tuple[Curve, Curve]], middle: Callable[[Curve], Any], rounds: int
) -> float:
    """Return two standard errors of the control's ratio to plain training.

    Judged in two ways, of which the worse counts: by how far each round's ratio is from 1, and by
    how far the ratios of five parts of each round are from one another.
    """
    whole = [float(middle(again) / middle(plain)) for again, plain in pairs]
    distance = math.sqrt(sum((ratio - 1.0) ** 2 for ratio in whole) / len(whole))
    parts = [
        float(middle(again[i::PARTS]) / middle(plain[i::PARTS]))
        for again, plain in pairs
        for i in range(min(PARTS, len(plain)))
    ]
    within = float(np.std(parts)) / math.sqrt(PARTS)
    return 2.0 * max(distance, within) / math.sqrt(rounds)
