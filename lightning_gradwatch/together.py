"""Steps on which no verdict is waited for: read at once, judged several at a time.

Between two steps a model's numbers push everything of ours out of the processor's caches, so that
judging one step costs several times what it costs right behind another. Where no action waits for
the verdict (clipping does not), steps wait for each other instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from lightning_gradwatch.at_once import Row, decide, name_culprit
from lightning_gradwatch.brief import Brief
from lightning_gradwatch.probe.ring import PinnedDoor, Ring
from lightning_gradwatch.probe.step import Aftermath, OpenStep, StepContext
from lightning_gradwatch.probe.taken import Taken
from lightning_gradwatch.sample import Floats, Sample

#: What a step looked like, and what became known of the one before.
Made = tuple[Sample, Aftermath | None]

#: Steps that wait for each other at most, and seconds that any of them waits while steps come.
STEPS, SECONDS = 16, 0.5


class Together:
    """Reads each step on the host before it is made, and judges some of them in a row.

    A step with NaN or Inf waits for nothing: who it was can only be told before it is made. Nor do
    slow steps, to which it would save nothing.

    Args:
        row: Everyone whom a step passes.
        clock: Seconds since any fixed point; given by tests.
    """

    def __init__(self, row: Row, clock: Callable[[], float] = time.monotonic) -> None:
        self._row = row
        self._clock = clock
        self.ring = Ring(PinnedDoor())  # for its order: what lies on the host has arrived
        self._waiting = 0
        self._since = clock()

    def step(self, context: StepContext, recorded: bool, updates: bool, may_change: bool) -> None:
        """Read a step, and let actions that need no verdict decide on it.

        Args:
            context: What the loop knows of it.
            recorded: It belongs to the history.
            updates: Measure how it changes the weights.
            may_change: Others may still change the gradients before they are used.
        """
        row, probe = self._row, self._row.probe
        probe.ahead = False
        read = row.guard.call(probe, probe.look, context, default=None)
        sample: Any = None
        if read is not None:
            sample = row.guard.call(probe, self._let_wait, *read, recorded, default=None)
        if row.acting.actions:
            records = decide(row, context, sample, [], updates, may_change)
            if records:
                self.ring.send((), lambda _: row.acting.tell(records))
        elif read is not None:
            row.guard.call(
                probe,
                probe.watch_step,
                updates=updates,
                may_change=may_change,
                clipped_norm=None,
                default=None,
            )
        self._waiting += 1
        self.hear()

    def bring(self, step: OpenStep) -> None:
        """Take in what a step has left behind, in its turn."""
        self._send(step.tensors, lambda late: self._row.judge.complete(step.finish(late)))

    def hear(self, wait: bool = False, may_replay: bool = False) -> None:
        """Judge the steps that wait, if it is time.

        Args:
            wait: It is.
            may_replay: Ignored: a batch is replayed before its step is made.
        """
        if not wait and self._waiting < STEPS and self._clock() - self._since < SECONDS:
            return
        with torch.no_grad():
            self._row.guard.call("judging", self.ring.drain, default=None)
        self._waiting, self._since = 0, self._clock()

    def salvage(self) -> None:
        """Judge what waits; the last step was not made, or was the last."""
        self.hear(wait=True)
        step = self._row.probe.flush()
        if step is not None:
            self.bring(step)
        self.hear(wait=True)

    def _send(self, tensors: Sequence[Tensor], then: Callable[[list[Floats]], None]) -> None:
        """Let what the probe measured wait; should it fail, what actions did is still told."""
        guard, probe = self._row.guard, self._row.probe
        self.ring.send(tensors, lambda late: guard.call(probe, then, late, default=None))

    def _let_wait(
        self, taken: Taken, raw: Floats, fetched: list[Floats], recorded: bool
    ) -> Sample | Brief | None:
        """Let a step wait for its verdict; return what actions see of it."""
        make = cache(partial(taken.make, raw, fetched))
        self._send((), lambda _: self._judge(taken, make(), recorded))
        if not taken.is_ordinary(raw, fetched):
            self.hear(wait=True)
            return make()[0]
        if not self._row.acting.actions:
            return None
        return taken.brief(raw, fetched, lambda: make()[0])

    def _judge(self, taken: Taken, made: Made, recorded: bool) -> None:
        context = taken.step.context
        sample, aftermath = made
        self._row.judge.complete(aftermath)
        seek = None if context.replay is None else partial(name_culprit, self._row, context)
        self._row.judge.take_in(sample, recorded, seek)
        if not self._row.acting.actions:
            taken.step.clipped_norm = sample.global_norm
