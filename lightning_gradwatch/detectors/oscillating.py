"""`oscillating`: the step is too long, and the loss swings or rises instead of falling."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from lightning_gradwatch.detectors.course import LossCourse
from lightning_gradwatch.detectors.depth import Before, step_length
from lightning_gradwatch.detectors.inside import FITTED, output_force
from lightning_gradwatch.detectors.sentences import amount
from lightning_gradwatch.detectors.verdict import Verdict
from lightning_gradwatch.errors import check_int, check_number
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.sample import Sample, Update

#: Share of the initial loss below which it may be as noisy as it likes.
_LEFT = 0.1
#: Times the very first loss at which the first steps put a run that they threw off.
_THROWN = 2.0
#: Shares of the initial loss, at its best and now, of a run that has got nowhere.
_BEST, _NOW = 0.85, 0.9


@dataclass
class _Track:
    """One optimizer: loss, latest step, verdict (readings: step lengths), output forces."""

    course: LossCourse = field(default_factory=LossCourse)
    before: Before | None = None
    verdict: Verdict = field(default_factory=Verdict)
    force: float = math.nan  # the first one
    latest: list[float] = field(default_factory=list)


class Oscillating:
    """Finds steps that are too long: the loss swings, or rises, instead of falling.

    Two things at once: within the latest 64 steps all climbs of the loss together are larger than
    the loss was at the start, its two largest jumps left out; and measured steps promise, each, a
    large part of the loss. A noisy loss climbs too, but not that much as long as the model learns;
    a steep start promises much, but falls. A model that knew its task when the run began has no
    such start to be compared with, and one whose loss is below a tenth of it has learnt: of these
    nothing is said. Growth out of all bounds is `exploding`.

    First steps that doubled the loss, after which it stays where it began, are told as well: they
    threw the weights to where nothing is learnt any more.

    Args:
        climb: Sum of all rises of the loss (means of 4 steps) within 64 steps, over the loss at the
            start, that counts as swinging, > 0 (sound runs: up to 0.8).
        step_length: Promised decrease of the loss in one step, over the loss, that counts as long,
            > 0.
        sustained: Steps after which a symptom that does not go away becomes an ERROR, >= 1.

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is out of range.

    References:
        - Cohen et al. (2021), Gradient descent on neural networks typically occurs at the edge of
          stability
    """

    def __init__(
        self,
        climb: float = 1.5,
        step_length: float = 0.03,
        sustained: int = 1000,
    ) -> None:
        self.climb = check_number("climb", climb, above=0)
        self.step_length = check_number("step_length", step_length, above=0)
        self.sustained = check_int("sustained", sustained, at_least=1)
        self.reset()

    def reset(self) -> None:
        """Forget the run."""
        self._tracks: dict[int, _Track] = {}

    def update(self, sample: Sample) -> Iterator[Finding]:
        """Follow the loss; judge at every step, with the steps measured last."""
        track = self._tracks.setdefault(sample.optimizer, _Track())
        if sample.update is not None:
            self._measure(sample.update)
        if sample.amp_overflow:
            return
        track.course.push(sample.loss)
        track.before = Before.of(sample)
        if sample.flow is not None and sample.flow.modules is not None:
            force = output_force(sample, sample.flow.modules)
            if math.isfinite(force):
                track.force = force if math.isnan(track.force) else track.force
                track.latest = [*track.latest[-2:], force]
        track.verdict.settle(self._judge(sample, track), sample.step)
        found = track.verdict.at(sample.step, self.sustained)
        if found is not None:
            yield found

    def _measure(self, update: Update) -> None:
        track = self._tracks.get(update.optimizer)
        if track is not None and track.before is not None and track.before.step == update.step:
            track.verdict.add([abs(step_length(track.before, update))])

    def _judge(self, sample: Sample, track: _Track) -> Finding | None:
        course, readings = track.course, track.verdict.readings
        if not readings or not math.isfinite(sample.loss):
            return None
        lengths = [length for (length,) in readings[-4:]]
        length = math.nan if any(map(math.isnan, lengths)) else median(lengths)
        # Comparisons with NaN are false: what is not known is no symptom.
        if track.force >= FITTED or not length >= self.step_length:
            return None
        climb = course.climb
        # Below a tenth of the loss it is the noise of a model that has learnt.
        swings = climb >= self.climb and course.level >= _LEFT * course.top
        settled = (
            len(self._tracks) == 1  # the loss is its own to lower
            and course.top >= _THROWN * course.start
            and course.best >= _BEST * course.start
            and course.level >= _NOW * course.start
            and not (track.latest and float(np.median(track.latest)) >= FITTED)
            and not math.isnan(course.falling)
        )
        if not (swings or settled):
            return None
        evidence = {
            **({"climb": climb} if swings else {"settled": 1.0}),
            "step_length": length,
            "loss": course.level,
            "loss_at_start": course.start,
        }
        if math.isfinite(sample.lr):
            evidence["lr_now"] = sample.lr
        if sample.optimizer:
            evidence["optimizer"] = float(sample.optimizer)
        what = (
            f"The loss swings instead of falling: its climbs in the latest 64 steps add up to "
            f"{amount(climb)} times the {amount(course.start)} at which it began"
            if swings
            else f"The loss does not fall: it is {amount(course.level)}, from "
            f"{amount(course.start)} at the start"
        )
        summary = f"{what}, and a step promises to change it by {amount(length)} of its value."
        step = sample.step
        return Finding("oscillating", Severity.WARNING, (), step, step, 1, evidence, summary)

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen, as plain Python values."""
        return {
            str(index): {
                "course": track.course.to_dict(),
                "before": None if track.before is None else track.before.to_dict(),
                "verdict": track.verdict.to_dict(),
                "force": track.force,
                "latest": [*track.latest],
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
                float(data["force"]),
                [float(x) for x in data["latest"]],
            )
            for index, data in state.items()
        }
