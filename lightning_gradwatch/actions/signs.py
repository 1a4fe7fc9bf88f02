"""What tells that a run has to go back: findings, non-finite steps that do not end, the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch

from lightning_gradwatch.actions.loss_guard import LossGuard
from lightning_gradwatch.actions.probation import Probation
from lightning_gradwatch.actions.stride import Stride
from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.actions.trigger import in_words
from lightning_gradwatch.finding import Finding

#: As long as the loss is above this share of what it was at first, nothing has been learnt.
_SAME = 0.7
#: Non-finite steps in a row that do no harm, because they are left out anyway: where the weights or
#: the loss are sick as well, where they are not, and at most. `SkipStep` ends the run at ten.
PATIENCE, _LONG, _LONGEST = 3, 7, 9
#: Findings that are about this very step; any other is about the latest steps, and says nothing new
#: before so many have followed on a rollback.
_SUDDEN, _WINDOW = ("exploding", "nonfinite", "spike"), 64
#: Findings that are told so late that a state which had learnt something would have them already.
_SLOW = ("dead_units", "saturated", "vanishing")
#: Evidence of what ails the initial weights, and steps within which any other lasting symptom is
#: one of theirs: there is nothing better to go back to.
_INBORN, _BORN = {"forward_growth", "early_elasticity"}, 4
#: Findings that no healthy step has, whatever sets the rollback off.
_UNHEALTHY = ("exploding", "nonfinite", "spike", "oscillating")


class Cause(NamedTuple):
    """Why to go back.

    Attributes:
        words: For the record.
        is_old: It began long ago.
        is_harmless: The loss of the steps that were made is in its range: the rate may be right.
    """

    words: str
    is_old: bool = False
    is_harmless: bool = False


@dataclass
class Row:
    """Non-finite steps in a row that were left out.

    Attributes:
        length: Of the row that is going on.
        survived: Longest row after which the run went on by itself: its data is so.
    """

    length: int = 0
    survived: int = 0

    def push(self) -> None:
        """Count one."""
        self.length += 1

    def is_too_long(self, sick: bool) -> bool:
        """Whether it has just become too long to be the data's.

        Args:
            sick: Whether something else speaks for it too.
        """
        return self.length == min((PATIENCE if sick else _LONG) + 2 * self.survived, _LONGEST)

    def end(self) -> None:
        """A sound step was made."""
        self.survived = max(self.survived, self.length)
        self.length = 0


@dataclass
class Signs:
    """All that is followed of a run to tell when it has to go back.

    Attributes:
        guard: Whether the loss is in the range that the run has come down to.
        probation: Whether the run gets anywhere, at its beginning and after a rollback.
        stride: How long its first step was.
        row: Non-finite steps that were left out.
        inborn: Codes that were there from the beginning.
    """

    guard: LossGuard = field(default_factory=LossGuard)
    probation: Probation = field(default_factory=Probation)
    stride: Stride = field(default_factory=Stride)
    row: Row = field(default_factory=Row)
    inborn: list[str] = field(default_factory=list)

    def see(self, training: Training) -> None:
        """Follow the loss of a step."""
        if not training.sample.amp_overflow:
            self.guard.push(training.loss)
            self.probation.push(training.loss)
        self.stride.see(training)

    @property
    def has_learnt(self) -> bool:
        """Whether there is anything healthier than the initial weights, as far as is known."""
        nothing_yet = self.guard.level >= _SAME * self.probation.origin  # False where not known
        return not nothing_yet

    def of_findings(
        self,
        findings: Sequence[Finding],
        training: Training,
        on: Sequence[str],
        has_learnt: bool,
        steps: int,
        since: float,
    ) -> Cause | None:
        """Return why it is time to go back, by what was found at this step.

        Args:
            findings: All of this step.
            training: The step.
            on: Codes that count.
            has_learnt: Whether there is anything healthier than the initial weights.
            steps: Steps made.
            since: Steps made since the latest rollback; Inf without any.
        """
        found = [f for f in findings if f.code in on and not _INBORN & {*f.evidence}]
        if steps < _BORN and math.isinf(since):
            lasting = {f.code for f in found if f.code not in _SUDDEN}
            self.inborn = sorted({*self.inborn, *lasting})
        found = [f for f in found if f.code not in self.inborn]
        if has_learnt:
            found = [f for f in found if f.code not in _SLOW]
        if since < _WINDOW:
            found = [f for f in found if f.code in _SUDDEN]
        left_out = training.skipped or training.sample.amp_overflow
        told = any(f.code == "nonfinite" for f in found) and not training.skipped
        if told and training.only_loss_is_nonfinite():  # asked on every rank alike
            found = [f for f in found if f.code != "nonfinite"]
        if not found:
            return None
        worst = max(found, key=lambda f: (f.code != "nonfinite", f.severity))
        if worst.code == "nonfinite" and left_out:
            # Nothing comes of a step that is not made; but where they do not end, there is more to
            # it than a batch. Overflows that a scaler deals with are no findings.
            self.row.push()
            calm, broken = self.guard.is_calm, self.row.length >= PATIENCE and _broken(training)
            if not self.row.is_too_long(broken or not calm):
                return None
            why = f"{in_words(worst)} {self.row.length} such steps in a row"
            return Cause(why, is_harmless=calm)
        if training.sample.amp_overflow:
            return None
        return Cause(in_words(worst), worst.code not in _SUDDEN)

    def of_loss(self, training: Training) -> Cause | None:
        """Return the same, by the loss alone."""
        now = self.guard.now
        if self.guard.is_lost:
            was = self.guard.level
            return Cause(f"the loss has risen from {was:.4g} to {now:.4g} and stays there")
        was = self.probation.origin
        if self.probation.is_thrown and self.stride.is_far_too_long(training):
            return Cause(
                f"the first step promised to lower the loss by {self.stride.length:.3g} times its "
                f"value, and it is {now:.4g}, from {was:.4g}", is_old=True,
            )  # fmt: skip
        if self.probation.has_failed:
            return Cause(f"the loss began at {was:.4g}, is {now:.4g} and does not fall", True)
        return None

    def is_healthy(
        self, findings: Sequence[Finding], training: Training, on: Sequence[str]
    ) -> bool | None:
        """Whether nothing speaks against the state that this step begins with; None: no step."""
        if training.skipped:
            return None
        if any(f.code in (*_UNHEALTHY, *on) for f in findings):
            return False
        self.row.end()
        return self.guard.is_calm

    def go_back(self, guard: Mapping[str, Any]) -> None:
        """The run is set back to where `guard` had been saved."""
        self.guard = LossGuard.from_dict(guard)
        # Where a lower rate did not help, it may be too low by now: that is not judged again.
        again = self.probation.set_back and self.probation.has_failed
        origin, level = self.probation.origin, self.guard.settled
        self.probation = Probation(origin, level, set_back=not again)
        self.row.length = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python types only."""
        return {
            "guard": self.guard.to_dict(),
            "probation": self.probation.to_dict(),
            "stride": self.stride.to_dict(),
            "row": asdict(self.row),
            "inborn": [*self.inborn],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Signs:
        """Rebuild what `to_dict` returned."""
        return cls(
            LossGuard.from_dict(data["guard"]),
            Probation.from_dict(data["probation"]),
            Stride.from_dict(data["stride"]),
            Row(**data["row"]),
            [*data["inborn"]],
        )


def _broken(training: Training) -> bool:
    """Whether there is NaN or Inf in the weights or buffers. A collective."""
    tensors = () if training.trained is None else training.trained.tensors()
    return training.agree(not all(bool(torch.isfinite(t).all()) for _, t in tensors))
