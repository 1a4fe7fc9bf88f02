"""Goes back to the last healthy state, and on from there with shorter steps."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions.shelf import Shelf
from lightning_gradwatch.actions.signs import Cause, Signs
from lightning_gradwatch.actions.snapshot import Trained
from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.errors import (
    check_codes,
    check_int,
    check_number,
)
from lightning_gradwatch.finding import Finding

#: Steps for which the initial weights are kept as long as nothing has been learnt: what came since
#: may be dead.
_OLD = 200
#: A rollback within so many steps of the last one: the rate is still far too high.
_SOON_AGAIN = 30


@dataclass
class _Progress:
    """What is counted.

    Attributes:
        times: Rollbacks.
        returned: Steps made until the latest one.
        repeats: Rollbacks that followed one upon the other.
        went_back_at: Epoch and batch of the latest rollback.
    """

    times: int = 0
    returned: int = 0
    repeats: int = 0
    went_back_at: list[int] = field(default_factory=list)


class Rollback:
    """Keeps snapshots of the last healthy state; on a finding restores one and lowers the rate.

    A snapshot holds weights, buffers, optimizer and scaler state in host memory. It is taken at
    steps without a finding whose loss is in its own range, and counts as healthy only after ten
    more calm steps: an explosion is found some steps after it began. Two are kept, so that there is
    always one that is older than the damage; until something was learnt, that of the initial
    weights.

    Set off by findings, and by the loss alone: it has left the range that it had come down to, and
    stays half of the way up to its start or more (`LossGuard`), does not fall after a rollback, or
    at the beginning, where the first step was far too long (`Probation`, `Stride`). After a
    rollback the step is left out, the learning rate lowered so that it stays lowered (as `DecayLR`
    does), the detectors go on as they were at the snapshot, and training goes on with the next
    batch: schedules, `global_step` and the place in the data are not set back. Where the next one
    follows within 30 steps, the rate is lowered half as far again, and so on.

    With `SkipStep` before it, non-finite steps are that action's business, until three in a row go
    with weights or a loss that are sick too, or seven with none.

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
        self.reset()

    def reset(self) -> None:
        """Forget the run and let go of the snapshots."""
        self._shelf = Shelf(self.every_n_steps)
        self._signs = Signs()
        self._progress = _Progress()
        self._sharded = False

    def prepare(self, trained: Trained) -> None:
        """Take the first snapshot, before the first batch.

        Raises:
            ConfigurationError: the snapshots do not fit into the memory that is free.
        """
        self._sharded = trained.is_sharded
        # A checkpoint may still be written after the fit; once the module is gone, none can be.
        weakref.finalize(trained.module, _let_go, weakref.ref(self), weakref.ref(self._shelf))
        self._shelf.begin(trained, self._signs.guard.to_dict())

    def apply(self, findings: Sequence[Finding], training: Training) -> ActionRecord | None:
        """Go back if it is time to; else take a snapshot if one is due."""
        sample, trained = training.sample, training.trained
        if trained is None:
            return None
        signs, now = self._signs, self._progress
        guarded = self.watch_loss and len(trained.optimizers) <= 1
        if guarded:
            signs.see(training)
        if now.went_back_at == [sample.epoch, sample.batch_idx]:
            # Another optimizer's gradients of this batch are those of the weights before.
            training.skip_step()
            return None
        steps = self._shelf.steps
        since = steps - now.returned if now.times else math.inf
        cause = signs.of_findings(findings, training, self.on, self._has_learnt, steps, since)
        if cause is None and guarded:
            cause = signs.of_loss(training)
        if cause is not None and self._shelf.kept:
            return self._go_back(cause, training, trained)
        if not sample.amp_overflow:
            healthy = signs.is_healthy(findings, training, self.on)
            guard = signs.guard.to_dict()
            if self._shelf.follow(healthy, self._has_learnt, trained, training.step, guard):
                now.repeats = 0
        return None

    @property
    def _has_learnt(self) -> bool:
        """Whether there is anything healthier than the initial weights, or they are too old."""
        return self._signs.has_learnt or self._shelf.steps >= _OLD

    def _go_back(self, cause: Cause, training: Training, trained: Trained) -> ActionRecord:
        now, steps, why = self._progress, self._shelf.steps, cause.words
        if steps - now.returned > _SOON_AGAIN:
            now.repeats = 0
        learnt = self._has_learnt
        kept = self._shelf.pick(oldest=cause.is_old or now.repeats > 0)
        unknown = kept.snapshot.write_back(trained)
        training.skip_step()
        self._signs.go_back(kept.guard)
        now.times += 1
        now.returned = steps
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
        factor, last = self.factor ** (now.repeats / 2 + 1), now.repeats
        now.repeats += 1
        if cause.is_harmless and now.times == 1:
            return ActionRecord(type(self).__name__, training.step, why)
        if not (learnt or last):
            factor = self._signs.stride.factor(factor, training)
        change = training.scale_lr(factor)
        before, after = change if change is not None else (math.nan, math.nan)
        return ActionRecord(type(self).__name__, training.step, why, before, after)

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return the counters, the course of the loss, and the snapshots."""
        keep = self.in_checkpoint and not self._sharded  # rank zero saves, and has its shards only
        return {
            "progress": asdict(self._progress),
            "signs": self._signs.to_dict(),
            "shelf": self._shelf.to_dict(snapshots=keep),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._progress = _Progress(**state_dict["progress"])
        self._signs = Signs.from_dict(state_dict["signs"])
        self._shelf = Shelf.from_dict(state_dict["shelf"], self.every_n_steps)

    def __repr__(self) -> str:
        return (
            f"Rollback(every_n_steps={self.every_n_steps}, on={self.on}, factor={self.factor}, "
            f"max_times={self.max_times}, watch_loss={self.watch_loss}, "
            f"in_checkpoint={self.in_checkpoint})"
        )


def _let_go(action: weakref.ref[Rollback], shelf: weakref.ref[Shelf]) -> None:
    """Drop the snapshots of a module that is gone, unless another run has begun since."""
    rollback = action()
    if rollback is not None and rollback._shelf is shelf():
        rollback._shelf.kept.clear()
