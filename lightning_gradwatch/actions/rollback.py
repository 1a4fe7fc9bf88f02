"""Goes back to the last healthy state, and on from there with shorter steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions.loss_guard import LossGuard
from lightning_gradwatch.actions.probation import Probation
from lightning_gradwatch.actions.shelf import Shelf
from lightning_gradwatch.actions.snapshot import Trained
from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.actions.trigger import Trigger, in_words
from lightning_gradwatch.errors import (
    check_codes,
    check_int,
    check_number,
)
from lightning_gradwatch.finding import Finding

#: As long as the loss is above this share of what it was at first, but for no more than so many
#: steps, the initial weights are kept: what came since may be dead.
_SAME, _OLD = 0.7, 200
#: A rollback within so many steps of the last one: the rate is still far too high.
_SOON_AGAIN = 30
#: Non-finite steps in a row that do no harm, because they are left out anyway.
PATIENCE = 3
#: Findings that are about this very step; any other is about the latest steps, and says nothing new
#: before so many have followed on a rollback.
_SUDDEN, _WINDOW = ("exploding", "nonfinite", "spike"), 64
#: Findings that are told so late that a state which had learnt something would have them already.
_SLOW = ("dead_units", "saturated", "vanishing")
#: Evidence of what ails the initial weights, and steps within which any other lasting symptom is
#: one of theirs: there is nothing better to go back to.
_INBORN, _BORN = {"forward_growth", "early_elasticity"}, 4
#: Findings at which no snapshot is taken, whatever sets the rollback off.
_UNHEALTHY = ("exploding", "nonfinite", "spike", "oscillating")


@dataclass
class _Progress:
    """What is counted.

    Attributes:
        times: Rollbacks.
        returned: Steps made until the latest one.
        repeats: Rollbacks that followed one upon the other.
        left_out: Non-finite steps in a row that were left out.
        inborn: Codes that were there from the beginning.
        went_back_at: Epoch and batch of the latest rollback.
    """

    times: int = 0
    returned: int = 0
    repeats: int = 0
    left_out: int = 0
    inborn: list[str] = field(default_factory=list)
    went_back_at: list[int] = field(default_factory=list)


class Rollback:
    """Keeps snapshots of the last healthy state; on a finding restores one and lowers the rate.

    A snapshot holds weights, buffers, optimizer and scaler state in host memory. It is taken at
    steps without a finding whose loss is in its own range, and counts as healthy only after ten
    more calm steps: an explosion is found some steps after it began. Two are kept, so that there is
    always one that is older than the damage; until something was learnt, that of the initial
    weights.

    Set off by findings, and by the loss alone: it has left the range that it had come down to, and
    stays half of the way up to its start or more (`LossGuard`), or does not fall after a rollback
    (`Probation`). After a rollback the step is left out, the learning rate lowered so that it stays
    lowered (as `DecayLR` does), the detectors go on as they were at the snapshot, and training goes
    on with the next batch: schedules, `global_step` and the place in the data are not set back.
    Where the next one follows within 30 steps, the rate is lowered half as far again, and so on.

    With `SkipStep` before it, single non-finite steps are that action's business; the third in a
    row, which no batch explains, is a rollback.

    Args:
        every_n_steps: Take a snapshot each n-th healthy optimizer step, >= 1; a young run is kept
            more often.
        on: Finding codes that set it off.
        factor: What the learning rate is multiplied by, 0 < factor < 1.
        max_times: Rollbacks in a run, >= 1. The next one ends training, with the healthy weights
            in place.
        watch_loss: Also act on the loss alone. Only with one optimizer: adversaries' losses rise.
        in_checkpoint: Save the snapshots in checkpoints, so that a resumed run can go back as far.
            They make a checkpoint three times as large; without them a resumed run keeps its first
            snapshot when it starts.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, an unknown code; when the fit starts, snapshots
            that do not fit into memory.

    Example:
        >>> Rollback(every_n_steps=100, max_times=5)
        Rollback(every_n_steps=100, on=('exploding', 'nonfinite'), factor=0.5, max_times=5, \
watch_loss=True, in_checkpoint=True)

    References:
        - Chowdhery et al.: PaLM: Scaling Language Modeling with Pathways. JMLR 24, 2023, section
          5.1 (restarting from a checkpoint before a spike). https://arxiv.org/abs/2204.02311
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        on: Sequence[str] = ("exploding", "nonfinite"),
        factor: float = 0.5,
        max_times: int = 10,
        watch_loss: bool = True,
        in_checkpoint: bool = True,
    ) -> None:
        self.every_n_steps = check_int("every_n_steps", every_n_steps, at_least=1)
        self.on = check_codes("on", on)
        self.factor = check_number("factor", factor, above=0, below=1)
        self.max_times = check_int("max_times", max_times, at_least=1)
        for name, value in (("watch_loss", watch_loss), ("in_checkpoint", in_checkpoint)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, got {value!r}")
        self.watch_loss, self.in_checkpoint = watch_loss, in_checkpoint
        self._trigger = Trigger(self.on)
        self.reset()

    def reset(self) -> None:
        """Forget the run and let go of the snapshots."""
        self._shelf = Shelf(self.every_n_steps)
        self._guard = LossGuard()
        self._probation = Probation()
        self._progress = _Progress()
        self._sharded = False

    def prepare(self, trained: Trained) -> None:
        """Take the first snapshot, before the first batch.

        Raises:
            ConfigurationError: the snapshots do not fit into the memory that is free.
        """
        self._sharded = trained.is_sharded
        self._shelf.begin(trained, self._guard.to_dict())

    def apply(self, findings: Sequence[Finding], training: Training) -> ActionRecord | None:
        """Go back if it is time to; else take a snapshot if one is due."""
        sample, trained = training.sample, training.trained
        if trained is None:
            return None
        guarded = self.watch_loss and len(trained.optimizers) <= 1
        if guarded and not sample.amp_overflow:
            self._guard.push(training.loss)
            self._probation.push(training.loss)
        if self._progress.went_back_at == [sample.epoch, sample.batch_idx]:
            # Another optimizer's gradients of this batch are those of the weights before.
            training.skip_step()
            return None
        cause = self._found(findings, training)
        if cause is None and guarded:
            cause = self._lost()
        if cause is not None and self._shelf.kept:
            return self._go_back(*cause, training, trained)
        if not sample.amp_overflow:
            sick = any(f.code in (*_UNHEALTHY, *self.on) for f in findings)
            healthy = not (sick or training.skipped) and self._guard.is_calm
            if healthy:
                self._progress.left_out = 0
            guard = self._guard.to_dict()
            if self._shelf.follow(healthy, self._has_learnt, trained, training.step, guard):
                self._progress.repeats = 0
        return None

    @property
    def _has_learnt(self) -> bool:
        """Whether there is anything healthier than the initial weights, or they are too old."""
        nothing_yet = self._guard.level >= _SAME * self._probation.origin  # False where not known
        return not nothing_yet or self._shelf.steps >= _OLD

    # ------------------------------------------------------------------ going back

    def _found(self, findings: Sequence[Finding], training: Training) -> tuple[str, bool] | None:
        """Return why it is time to go back, and whether it began long ago, by the findings."""
        now = self._progress
        found = [f for f in findings if f.code in self.on and not _INBORN & {*f.evidence}]
        if self._shelf.steps < _BORN and not now.times:
            now.inborn = sorted({*now.inborn, *(f.code for f in found if f.code not in _SUDDEN)})
        found = [f for f in found if f.code not in now.inborn]
        if self._has_learnt:
            found = [f for f in found if f.code not in _SLOW]
        if now.times and self._shelf.steps - now.returned < _WINDOW:
            found = [f for f in found if f.code in _SUDDEN]
        if not found:
            return None
        worst = max(found, key=lambda f: (f.code != "nonfinite", f.severity))
        left_out = training.skipped or training.sample.amp_overflow
        if worst.code == "nonfinite" and left_out:
            # Nothing comes of a step that is not made; but where they do not end, there is more to
            # it than a batch. Overflows that a scaler deals with are no findings.
            now.left_out += 1
            many = now.left_out
            why = f"{in_words(worst)} {many} such steps in a row"
            return (why, False) if many >= PATIENCE else None
        if training.sample.amp_overflow:
            return None
        return in_words(worst), worst.code not in _SUDDEN

    def _lost(self) -> tuple[str, bool] | None:
        """Return the same, by the loss."""
        now = self._guard.now
        if self._guard.is_lost:
            was = self._guard.level
            return f"the loss has risen from {was:.4g} to {now:.4g} and stays there", False
        if self._probation.has_failed:
            was = self._probation.origin
            return f"the loss began at {was:.4g}, is {now:.4g} and does not fall", True
        return None

    def _go_back(
        self, why: str, began_long_ago: bool, training: Training, trained: Trained
    ) -> ActionRecord:
        now, steps = self._progress, self._shelf.steps
        if steps - now.returned > _SOON_AGAIN:
            now.repeats = 0
        kept = self._shelf.pick(oldest=began_long_ago or now.repeats > 0)
        unknown = kept.snapshot.write_back(trained)
        training.skip_step()
        self._guard = LossGuard.from_dict(kept.guard)
        # Where a lower rate did not help, it may be too low by now: that is not judged again.
        again = self._probation.has_failed
        self._probation = Probation(self._probation.origin, self._guard.settled, set_back=not again)
        now.times += 1
        now.returned, now.left_out = steps, 0
        now.went_back_at = [training.sample.epoch, training.sample.batch_idx]
        step = kept.snapshot.step
        why += f"; back to the state of step {step}" if step >= 0 else "; back to where it resumed"
        if unknown:
            names = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
            why += f", but not {names}: added since"
        if now.times > self.max_times:
            why += (
                f"; {self.max_times} rollbacks (max_times) have not helped: training stops. The "
                "cause is not one that a lower learning rate removes; see the findings"
            )
            training.stop(f"Rollback: {why}")
            return ActionRecord(type(self).__name__, training.step, why)
        change = training.scale_lr(self.factor ** (now.repeats / 2 + 1))
        now.repeats += 1
        before, after = change if change is not None else (math.nan, math.nan)
        return ActionRecord(type(self).__name__, training.step, why, before, after)

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return the counters, the course of the loss, and the snapshots."""
        keep = self.in_checkpoint and not self._sharded  # rank zero saves, and has its shards only
        return {
            "progress": asdict(self._progress),
            "guard": self._guard.to_dict(),
            "probation": self._probation.to_dict(),
            "shelf": self._shelf.to_dict(snapshots=keep),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._progress = _Progress(**state_dict["progress"])
        self._guard = LossGuard.from_dict(state_dict["guard"])
        self._probation = Probation.from_dict(state_dict["probation"])
        self._shelf = Shelf.from_dict(state_dict["shelf"], self.every_n_steps)

    def __repr__(self) -> str:
        return (
            f"Rollback(every_n_steps={self.every_n_steps}, on={self.on}, factor={self.factor}, "
            f"max_times={self.max_times}, watch_loss={self.watch_loss}, "
            f"in_checkpoint={self.in_checkpoint})"
        )
