"""`stalled`: weights hardly move although there is loss left to learn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lightning_gradwatch.detectors.course import LossCourse
from lightning_gradwatch.detectors.depth import Before, step_length
from lightning_gradwatch.detectors.inside import FITTED, output_force
from lightning_gradwatch.detectors.sentences import amount
from lightning_gradwatch.detectors.verdict import Verdict
from lightning_gradwatch.errors import check_int, check_number
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.sample import Bools, Sample, Update

#: A step this long gets somewhere in some thirty steps.
_SOUND = 0.03
#: A learning rate that is still rising is given this many times the patience.
_RISING = 2
#: Share of the trainable elements without a gradient that makes a model unable to learn.
_MOST = 0.5
#: Output force up to which a model still puts out next to nothing: it has learnt nothing for sure.
_BLANK = 0.7
#: Fall of the loss over 32 steps that is not noise.
_FALL = 0.03


@dataclass
class _Track:
    """One optimizer.

    Attributes:
        course: Its loss.
        before: Its latest step.
        verdict: Readings are step length and agreement of measured steps.
        forces: The latest output forces.
        first_lr: Learning rate at the start.
        peak_lr: The highest so far.
        served: Parameters that have had a gradient.
        steps: Steps seen.
    """

    course: LossCourse = field(default_factory=LossCourse)
    before: Before | None = None
    verdict: Verdict = field(default_factory=Verdict)
    forces: list[float] = field(default_factory=list)
    first_lr: float = math.nan
    peak_lr: float = -math.inf
    served: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))
    steps: int = 0


class Stalled:
    """Finds runs that learn nothing because their steps are too short, or move the wrong weights.

    Judged on measured steps, by three things at once: the loss is about where it began; the model
    has not learnt anything before this run (what it puts out has nothing to do with its loss); and
    a step promises to lower the loss by next to nothing. Between hopeless and doubtful the gradient
    decides: where it keeps pointing the same way, there is a descent that is not made; where it
    does not, only a model that still puts out next to nothing has something left to learn.

    Also told is a run in which most of the trainable weights never get a step, because no optimizer
    holds them, and whose loss has come to rest.

    Args:
        step_length: Promised decrease of the loss in one step, over the loss, that counts as next
            to nothing, > 0. A tenth of it is hopeless.
        agreement: Cosine between successive measured gradients from which they agree, 0 to 1.
        fallen: Share of the initial loss by which it must have changed to count as moving,
            0 < fallen < 1.
        warmup: Steps before the first verdict, >= 1; twice as many while the learning rate rises.
        sustained: Steps after which a symptom that does not go away becomes an ERROR, >= 1.

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is out of range.

    Example:
        >>> from lightning_gradwatch.testing import deliver, make_sample, replay
        >>> samples = [  # steps of 1e-9 along gradients of 1 that agree, and a loss of 2
        ...     make_sample(
        ...         t, [1.0], weight_norm=[1.0], update_norm=[1e-9], agreement=0.9, loss=2.0
        ...     )
        ...     for t in range(100)
        ... ]
        >>> print(replay(Stalled(), deliver(samples))[0].summary)
        Training does not move: the loss is 2, from 2 at the start, and a step promises to \
lower it by 5e-10 of its value, although the gradient keeps its direction (cosine 0.9).
    """

    def __init__(
        self,
        step_length: float = 1e-3,
        agreement: float = 0.4,
        fallen: float = 0.25,
        warmup: int = 50,
        sustained: int = 1000,
    ) -> None:
        self.step_length = check_number("step_length", step_length, above=0)
        self.agreement = check_number("agreement", agreement, above=0, below=1)
        self.fallen = check_number("fallen", fallen, above=0, below=1)
        self.warmup = check_int("warmup", warmup, at_least=1)
        self.sustained = check_int("sustained", sustained, at_least=1)
        self.reset()

    def reset(self) -> None:
        """Forget the run."""
        self._tracks: dict[int, _Track] = {}

    def update(self, sample: Sample) -> Iterator[Finding]:
        """Follow the loss; judge when the sample carries the aftermath of a step."""
        if sample.update is not None:
            self._measure(sample.update)
        if sample.amp_overflow:
            return
        track = self._tracks.setdefault(sample.optimizer, _Track())
        self._follow(sample, track)
        # Where no weight moves, no step is ever measured.
        if sample.update is not None or not sample.has_grad.any():
            track.verdict.settle(self._judge(sample, track), sample.step)
        found = track.verdict.at(sample.step, self.sustained)
        if found is not None:
            yield found

    def _measure(self, update: Update) -> None:
        track = self._tracks.get(update.optimizer)
        if track is not None and track.before is not None and track.before.step == update.step:
            track.verdict.add([abs(step_length(track.before, update)), update.agreement])

    @staticmethod
    def _follow(sample: Sample, track: _Track) -> None:
        track.course.push(sample.loss)
        track.steps += 1
        track.before = Before.of(sample)
        if math.isfinite(sample.lr):
            track.first_lr = sample.lr if math.isnan(track.first_lr) else track.first_lr
            track.peak_lr = max(track.peak_lr, sample.lr)
        if track.served.shape != sample.has_grad.shape:
            track.served = np.zeros(sample.has_grad.shape, np.bool_)
        track.served |= sample.has_grad
        if sample.flow is not None and sample.flow.modules is not None:
            force = output_force(sample, sample.flow.modules)
            if math.isfinite(force):
                track.forces = [*track.forces[-2:], force]

    def _judge(self, sample: Sample, track: _Track) -> Finding | None:
        force = float(np.median(track.forces)) if track.forces else math.nan
        if force >= FITTED:
            return None
        left_out = self._left_out(sample)
        resting = track.course.falling < _FALL and not track.course.fallen >= 2 * self.fallen
        if track.steps >= 2 * self.warmup and left_out > _MOST and resting:
            return self._finding(sample, track, {"left_out_share": left_out})
        readings = track.verdict.readings[-3:]
        rising = sample.lr > 2 * track.first_lr
        if len(readings) < 3 or track.steps < self.warmup * (_RISING if rising else 1):
            return None
        length, agreement = np.median(np.array(readings), axis=0).tolist()
        length = max(length, readings[-1][0])  # steps that grow will get somewhere
        # Comparisons with NaN are false: what is not known is no symptom.
        hopeless = self.step_length / 10
        if agreement >= self.agreement:
            limit = hopeless if rising else self.step_length
        else:  # no common direction: a model that knows nothing yet, or one that knows all it can
            limit = hopeless if force <= _BLANK else 0.0
        course = track.course
        # A loss that has risen has moved too: another optimizer may be at work on it.
        still = course.fallen < self.fallen and course.level < course.start * (1 + self.fallen)
        if not (still and length < limit):
            return None
        evidence = {"step_length": length}
        if length > 0:
            evidence |= {"steps_needed": 1 / length, "too_short": _SOUND / length}
        if math.isfinite(agreement):
            evidence["agreement"] = agreement
        return self._finding(sample, track, evidence)

    def _left_out(self, sample: Sample) -> float:
        """Share of the trainable elements that no optimizer has had a gradient for."""
        served = np.zeros(sample.has_grad.shape, np.bool_)
        for track in self._tracks.values():
            if track.served.shape == served.shape:
                served |= track.served
        numel = np.asarray(sample.layout.numel, np.float64)
        return 1.0 - float(numel[served].sum() / numel.sum()) if numel.sum() else 0.0

    def _finding(self, sample: Sample, track: _Track, evidence: dict[str, float]) -> Finding:
        course = track.course
        told = f"the loss is {amount(course.level)}, from {amount(course.start)} at the start"
        if "left_out_share" in evidence:
            share = evidence["left_out_share"]
            why = f"{100 * share:.3g} % of the trainable weights have never had a step"
        else:
            why = f"a step promises to lower it by {amount(evidence['step_length'])} of its value"
            if evidence.get("agreement", 0.0) >= self.agreement:
                why += (
                    ", although the gradient keeps its direction (cosine "
                    f"{amount(evidence['agreement'])})"
                )
        evidence |= {"loss": course.level, "loss_at_start": course.start}
        if math.isfinite(sample.lr):
            evidence |= {
                "lr_now": sample.lr, "first_lr": track.first_lr, "peak_lr": track.peak_lr
            }  # fmt: skip
        if sample.optimizer:
            evidence["optimizer"] = float(sample.optimizer)
        summary = f"Training does not move: {told}, and {why}."
        step = sample.step
        return Finding("stalled", Severity.WARNING, (), step, step, 1, evidence, summary)

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen, as plain Python values."""
        return {
            str(index): {
                "course": track.course.to_dict(),
                "before": None if track.before is None else track.before.to_dict(),
                "verdict": track.verdict.to_dict(),
                "forces": [*track.forces],
                "first_lr": track.first_lr,
                "peak_lr": track.peak_lr,
                "served": track.served.tolist(),
                "steps": track.steps,
            }
            for index, track in self._tracks.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._tracks = {
            int(index): _Track(
                LossCourse.from_dict(data["course"]),
                None if data["before"] is None else Before.from_dict(data["before"]),
                Verdict.from_dict(data["verdict"]),
                [float(x) for x in data["forces"]],
                float(data["first_lr"]),
                float(data["peak_lr"]),
                np.array(data["served"], np.bool_),
                int(data["steps"]),
            )
            for index, data in state.items()
        }
