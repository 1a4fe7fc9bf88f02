"""Steps on which the device decides: their numbers are judged when they come, some steps later."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from lightning_gradwatch.actions.pending import Ahead, Outcome
from lightning_gradwatch.at_once import Row, take_part
from lightning_gradwatch.culprit.batches import Kept, is_broken
from lightning_gradwatch.culprit.find import Replay
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.probe.ring import Ring
from lightning_gradwatch.probe.step import OpenStep, StepContext
from lightning_gradwatch.probe.taken import Taken
from lightning_gradwatch.sample import Floats

#: Why nobody is named who produced a NaN.
_TOO_LATE = "on an accelerator numbers are seen after the step was made, see docs/measuring.md"


class Later:
    """Measures and acts on the device, and judges when the numbers have come.

    Args:
        row: Everyone whom a step passes.
        ring: Brings the numbers.
        optimizers: Whose parameters a replay needs whole.
    """

    def __init__(self, row: Row, ring: Ring, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._row = row
        self.ring = ring
        self._optimizers = tuple(optimizers)
        self._may_replay = False

    def step(self, context: StepContext, recorded: bool, updates: bool, may_change: bool) -> None:
        """Let the device decide on a step, and send its numbers on their way.

        Args:
            context: What the loop knows of it.
            recorded: It belongs to the history.
            updates: Measure how it changes the weights.
            may_change: Others may still change the gradients before they are used.
        """
        row, probe = self._row, self._row.probe
        probe.ahead = True
        taken = row.guard.call(probe, probe.take, context, default=None)
        take_part(row, context, failed=taken is None, again=may_change)
        if taken is None:
            return
        ahead = row.guard.call(
            "acting on the device", row.acting.act_ahead, context, probe, taken,
            last=not may_change, default=Ahead(),
        )  # fmt: skip
        batches = tuple(context.kept()) if context.replay and row.seeker.wants_batches else ()
        row.guard.call(
            probe,
            self.ring.send,
            [*taken.tensors, *ahead.tensors],
            partial(self._arrived, taken, ahead, recorded, batches),
            default=None,
        )
        row.guard.call(
            probe,
            probe.watch_step,
            updates=updates,
            may_change=may_change,
            clipped_norm=None,
            default=None,
        )
        # Last, when nothing of this step is left that a replay could disturb.
        self.hear(may_replay=True)

    def bring(self, step: OpenStep) -> None:
        """Take in what a step has left behind, in its turn."""
        self.ring.send(step.tensors, lambda late: self._row.judge.complete(step.finish(late)))

    def hear(self, wait: bool = False, may_replay: bool = False) -> None:
        """Take in what has come from the device by now.

        Args:
            wait: Take in everything that is under way.
            may_replay: A batch may be replayed now: the module is being trained.
        """
        self._may_replay = may_replay
        bring = self.ring.drain if wait else self.ring.poll
        with torch.no_grad():
            self._row.guard.call(self._row.probe, bring, default=None)
        self._may_replay = False

    def salvage(self) -> None:
        """Take in what still comes from a device that may be dead; say nothing if it is."""
        probe = self._row.probe
        try:
            self.ring.salvage()
            step = probe.flush()
            if step is not None:
                self.bring(step)
            self.ring.salvage()
        except RuntimeError:  # of the device: the exception that ended the run tells more
            return

    def _arrived(
        self,
        taken: Taken,
        ahead: Ahead,
        recorded: bool,
        batches: tuple[Kept, ...],
        fetched: list[Floats],
    ) -> None:
        """The numbers of an earlier step are there."""
        row, step, split = self._row, taken.step, len(fetched) - len(ahead.tensors)
        context = step.context
        sample, aftermath = taken.finish(fetched[:split])
        row.judge.complete(aftermath)
        seek = None if context.replay is None else partial(self._seek, context, batches)
        sample, findings = row.judge.take_in(sample, recorded, seek)
        outcome = row.guard.call(
            "the actions", row.acting.settle, ahead, sample, findings, fetched[split:],
            default=Outcome(math.nan),
        )  # fmt: skip
        step.clipped_norm = outcome.norm
        step.overflow = step.overflow or outcome.skipped

    def _seek(
        self, context: StepContext, batches: tuple[Kept, ...], found: list[Finding]
    ) -> list[Finding]:
        """Name who produced a NaN some steps ago, if the weights have survived it.

        They have where the step was left out, by `SkipStep` or by a gradient scaler. Else there is
        still the batch to look at.
        """
        if context.replay is None or not any(f.code == "nonfinite" for f in found):
            return found
        row = self._row
        late = Replay(nn.Module(), lambda *_: None, batches, refused=_TOO_LATE)
        if self._may_replay and context.lasting:
            held = [p for o in self._optimizers for g in o.param_groups for p in g["params"]]
            if not any(is_broken(parameter) for parameter in held):
                row.probe.disarm_flow()  # its hooks are not for the replay
                late = replace(context.replay(), batches=batches)
        return row.seeker.seek(found, lambda: late, context.batch_idx, row.judge.history)
