"""`spike`: a step far out of the run's own range, from which it may recover."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lightning_gradwatch.detectors.baseline import Baseline
from lightning_gradwatch.detectors.sentences import amount, heaviest, names
from lightning_gradwatch.errors import check_int, check_number
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.sample import Sample


class GradientSpike:
    """Finds single steps whose gradient norm lies far above the latest ones.

    The range is the median and the median absolute deviation of the norm's logarithm over a
    window, so that neither a trend, nor noisy small batches, nor the spikes themselves blind it.
    An overflow under a gradient scaler and anything non-finite is not a spike.

    Args:
        z: Robust standard deviations above the median, > 0.
        factor: Times the median that a spike must reach as well, > 1.
        window: Steps that make up the range, >= warmup.
        warmup: Steps before the first verdict, >= 2.
        longest: Steps in a row after which a high level is no longer called a spike, >= 1.

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is out of range.

    Example:
        >>> from lightning_gradwatch.testing import make_sample, replay
        >>> norms = [1.0] * 30 + [250.0] + [1.0] * 5
        >>> found = replay(GradientSpike(), [make_sample(t, [g]) for t, g in enumerate(norms)])
        >>> [(f.first_step, f.summary) for f in found]
        [(30, 'The gradient norm jumps to 250, 250 times the latest steps (mostly in layer0).')]

    References:
        - Kumar et al. (2025), ZClip: adaptive spike mitigation for LLM pre-training
    """

    def __init__(
        self,
        z: float = 6.0,
        factor: float = 10.0,
        window: int = 64,
        warmup: int = 20,
        longest: int = 5,
    ) -> None:
        self.z = check_number("z", z, above=0)
        self.factor = check_number("factor", factor, above=1)
        self.warmup = check_int("warmup", warmup, at_least=2)
        self.window = check_int("window", window, at_least=self.warmup)
        self.longest = check_int("longest", longest, at_least=1)
        self.reset()

    def reset(self) -> None:
        """Forget the run."""
        self._baselines: dict[int, Baseline] = {}
        self._streaks: dict[int, int] = {}

    def update(self, sample: Sample) -> Iterator[Finding]:
        """Compare the step with the window, then make it part of it."""
        norm = sample.global_norm / (sample.accumulated if sample.accumulated > 0 else 1.0)
        if sample.amp_overflow or not 0.0 < norm < math.inf:
            return
        index = sample.optimizer
        baseline = self._baselines.setdefault(index, Baseline(self.window))
        gap = baseline.gap(norm) if len(baseline) >= self.warmup else 0.0
        spread = baseline.spread if gap >= math.log10(self.factor) else math.inf
        spiking = gap >= self.z * spread
        streak = self._streaks.get(index, 0) + 1 if spiking else 0
        self._streaks[index] = streak
        baseline.push(norm)
        if 0 < streak <= self.longest:
            yield self._finding(sample, norm, 10**gap, gap / spread)

    @staticmethod
    def _finding(sample: Sample, norm: float, factor: float, z: float) -> Finding:
        layers = heaviest(sample)
        where = f" (mostly in {names(layers)})" if layers else ""
        evidence = {"norm": norm, "factor": factor, "z": z, "median": norm / factor}
        if sample.optimizer:
            evidence["optimizer"] = float(sample.optimizer)
        return Finding(
            code="spike",
            severity=Severity.INFO,
            layers=layers,
            first_step=sample.step,
            last_step=sample.step,
            evidence=evidence,
            summary=f"The gradient norm jumps to {amount(norm)}, {amount(factor)} times the latest "
            f"steps{where}.",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the window of every optimizer, as plain Python values."""
        return {
            "baselines": {str(k): v.state_dict() for k, v in self._baselines.items()},
            "streaks": {str(k): v for k, v in self._streaks.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.reset()
        for index, values in state["baselines"].items():
            self._baselines[int(index)] = Baseline(self.window)
            self._baselines[int(index)].load_state_dict(values)
        self._streaks = {int(k): int(v) for k, v in state["streaks"].items()}
