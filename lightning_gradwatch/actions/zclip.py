"""ZClip: clips gradient norms that stand out from the run's own latest ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.errors import check_int, check_number
from lightning_gradwatch.finding import Finding

#: Least spread, over the mean: norms that are all the same do not make every tremor an outlier.
_LEAST = 1e-6
#: Norms after which one may stand out in the warm-up.
_FEW = 3


@dataclass
class _Course:
    """The norms of one optimizer: those of the warm-up, then their moving mean and variance."""

    warming: list[float] = field(default_factory=list)
    mean: float = math.nan
    variance: float = math.nan


class ZClip:
    """Scales all gradients together where their norm stands out from the latest ones.

    After a warm-up, mean μ and standard deviation σ of the norm are followed by exponential moving
    averages. A norm g whose z = (g - μ) / σ is above `z_threshold` is clipped to
    μ + `z_threshold`² σ / z: the further out, the closer to the mean. Clipped norms enter the
    averages as clipped.

    A norm that is not finite enters nothing, and is not clipped: there is no direction to keep (see
    `SkipStep`). Neither do overflows of a gradient scaler, and steps that were skipped.

    Differs from the published code in two points, so that no unit of the loss matters: no fixed
    `max_norm` of 1 besides (it is an option), and the least spread is relative to the mean.

    Args:
        z_threshold: Standard deviations from which a norm is clipped, > 0.
        alpha: Weight of the past in the moving averages, 0 < alpha < 1.
        warmup_steps: Steps without clipping, whose mean and variance the averages begin with, >= 2.
        max_norm: A fixed limit as well, > 0, also in the warm-up; None: none. Published: 1.0.
        warmup_factor: In the warm-up, from its fourth step on, a norm that is more than this many
            times the largest so far is clipped to that, > 1; None: none is, as published.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range.

    Example:
        >>> ZClip(z_threshold=3.0)
        ZClip(z_threshold=3.0, alpha=0.97, warmup_steps=25, max_norm=None, warmup_factor=None)

    References:
        Kumar, Owen, Roy Chowdhury, Güra: ZClip: Adaptive Spike Mitigation for LLM Pre-Training.
        2025. https://arxiv.org/abs/2504.02507
    """

    def __init__(
        self,
        z_threshold: float = 2.5,
        alpha: float = 0.97,
        warmup_steps: int = 25,
        max_norm: float | None = None,
        warmup_factor: float | None = None,
    ) -> None:
        self.z_threshold = check_number("z_threshold", z_threshold, above=0)
        self.alpha = check_number("alpha", alpha, above=0, below=1)
        self.warmup_steps = check_int("warmup_steps", warmup_steps, at_least=2)
        self.max_norm = None if max_norm is None else check_number("max_norm", max_norm, above=0)
        self.warmup_factor = (
            None if warmup_factor is None else check_number("warmup_factor", warmup_factor, above=1)
        )
        self._courses: dict[int, _Course] = {}

    def apply(self, findings: Sequence[Finding], training: Training) -> ActionRecord | None:
        """Clip this step if its norm stands out; findings play no part."""
        norm = training.norm()
        if norm is None or not 0 < norm < math.inf:
            return None
        course = self._courses.setdefault(training.sample.optimizer, _Course())
        limit, why = self._limit(course, norm)
        self._learn(course, min(norm, limit))
        if self.max_norm is not None and self.max_norm < min(norm, limit):
            limit, why = self.max_norm, f"is above max_norm {self.max_norm:g}"
        change = training.clip_grad_norm(limit) if limit < norm else None
        if change is None:
            return None
        reason = f"gradient norm {change.before:.4g} {why}"
        return ActionRecord(type(self).__name__, training.step, reason, *change)

    def _limit(self, course: _Course, norm: float) -> tuple[float, str]:
        """Return what the norm is to be at most, and why."""
        if math.isnan(course.mean):
            return self._warmup_limit(course, norm)
        deviation = math.sqrt(course.variance)
        z = (norm - course.mean) / max(deviation, _LEAST * course.mean)
        if not z > self.z_threshold:
            return math.inf, ""
        why = f"is {z:.3g} standard deviations above the mean of {course.mean:.4g}"
        return course.mean + self.z_threshold**2 * deviation / z, why

    def _warmup_limit(self, course: _Course, norm: float) -> tuple[float, str]:
        largest = max(course.warming, default=math.inf)
        if self.warmup_factor is None or len(course.warming) < _FEW:
            return math.inf, ""
        if norm <= self.warmup_factor * largest:
            return math.inf, ""
        return largest, f"is {norm / largest:.3g} times the largest so far"

    def _learn(self, course: _Course, norm: float) -> None:
        if math.isnan(course.mean):
            course.warming.append(norm)
            if len(course.warming) == self.warmup_steps:
                course.mean = fmean(course.warming)
                course.variance = fmean((x - course.mean) ** 2 for x in course.warming)
                course.warming = []
            return
        course.mean = self.alpha * course.mean + (1 - self.alpha) * norm
        gap = norm - course.mean
        course.variance = self.alpha * course.variance + (1 - self.alpha) * gap**2

    def state_dict(self) -> dict[str, Any]:
        """Return the averages, by index of the optimizer."""
        return {"courses": {str(index): asdict(c) for index, c in self._courses.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._courses = {int(i): _Course(**c) for i, c in state_dict["courses"].items()}

    def reset(self) -> None:
        """Forget the norms: the next run warms up anew."""
        self._courses.clear()

    def __repr__(self) -> str:
        return (
            f"ZClip(z_threshold={self.z_threshold}, alpha={self.alpha}, "
            f"warmup_steps={self.warmup_steps}, max_norm={self.max_norm}, "
            f"warmup_factor={self.warmup_factor})"
        )
