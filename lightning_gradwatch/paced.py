"""The engine under a budget: it times itself, and samples less often where it takes too much."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradwatch.engine import Engine
from lightning_gradwatch.errors import GradWatchWarning
from lightning_gradwatch.hands import Hands
from lightning_gradwatch.pace import Pace
from lightning_gradwatch.paced_words import not_applied, of_intervals, what_was_done
from lightning_gradwatch.probe.host import is_at_hand
from lightning_gradwatch.probe.step import StepContext
from lightning_gradwatch.reporters.protocol import RunInfo
from lightning_gradwatch.settings import Settings
from lightning_gradwatch.unwrapped import ranks

#: What stands where nothing is timed.
UNTIMED = nullcontext()


def engine_for(
    settings: Settings, detectors: Sequence[Any], actions: Sequence[Any], reporters: Sequence[Any]
) -> Engine:
    """Return an engine: one that times itself if there is a budget, which costs a little too."""
    kind = Engine if settings.budget is None else PacedEngine
    return kind(settings, detectors, actions, reporters)


class PacedEngine(Engine):
    """An engine whose intervals grow until what it takes is within `settings.budget`.

    Args:
        settings: Checked arguments, with a budget.
        detectors: Objects with `update(sample)`.
        actions: Objects with `apply(findings, training)`.
        reporters: Objects with the `Reporter` methods.
    """

    def __init__(
        self,
        settings: Settings,
        detectors: Sequence[Any],
        actions: Sequence[Any],
        reporters: Sequence[Any],
    ) -> None:
        super().__init__(settings, detectors, actions, reporters)
        assert settings.budget is not None
        self._pace = Pace(settings.budget, settings.intervals, acts=bool(actions))
        self._reads = True
        self._lost = False

    def time_by(self, clock: Callable[[], float]) -> None:
        """Take the time from another clock than that on the wall.

        Args:
            clock: Seconds since any fixed point.
        """
        self._pace.clock = clock

    # ------------------------------------------------------------------ life

    def reset(self) -> None:
        """Forget the run: a new one begins."""
        super().reset()
        self._pace.reset()
        self.sampling = self.settings

    def start(
        self,
        module: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        run: RunInfo,
        hands: Hands,
        reporting: bool = True,
        untrusted: str = "",
    ) -> None:
        """Attach to a module and open the reporters; see `Engine.start`.

        Several processes meet in collectives on the steps that they read, and have no common clock
        to decide by on which they do.
        """
        count = max(hands.ranks, ranks()[1])
        self.pace = None if count > 1 else self._pace
        self.sampling = self.settings.at(self._pace.intervals) if self.pace else self.settings
        self._pace.start(len(optimizers))
        if self.pace is not None:
            run = self._said(run)
        elif reporting:
            message = not_applied(self.settings, count)
            warnings.warn(message, GradWatchWarning, stacklevel=2)
        super().start(module, optimizers, run, hands, reporting, untrusted)

    def stop(self, failed: bool = False) -> None:
        """Detach, finish the reporters, keep what was learnt; say what nobody was told yet."""
        if self.attached and self.pace is not None:
            self._tell()
        super().stop(failed)

    # ------------------------------------------------------------------ one step

    def begin_batch(self, announced: bool = False) -> None:
        """A batch begins: see `Engine.begin_batch`."""
        with self.pace or UNTIMED:
            super().begin_batch(announced)
            if self.pace is not None and self._probe is not None and self._probe.is_armed:
                self.pace.hooked()

    def add_loss(self, loss: Tensor, factor: float = 1.0) -> None:
        """A loss is about to be backpropagated: see `Engine.add_loss`."""
        with self.pace or UNTIMED:
            # A look at a loss costs next to nothing where nobody has to be waited for.
            if loss.numel() == 1 and is_at_hand(loss) and not math.isfinite(loss.item()):
                self._lost = True
            if self.actions or any(map(self._samples, range(max(len(self._optimizers), 1)))):
                super().add_loss(loss, factor)

    def _samples(self, index: int) -> bool:
        """Whether anything of the coming step of an optimizer is sampled."""
        count = self._counts.get(index, 0)
        return self._records(count) or self.sampling.samples_update(count)

    def _records(self, count: int) -> bool:
        """Whether a step belongs to the history: one whose loss is NaN or Inf always does."""
        return self._lost or super()._records(count)

    def before_step(self, context: StepContext, may_change: bool = False) -> None:
        """The optimizer is about to step: see `Engine.before_step`."""
        self._reads = bool(self.actions) or self._samples(context.index)
        pace = self.pace
        if pace is None or not self.attached:
            super().before_step(context, may_change)
            return
        with pace:
            if pace.ends_span:
                self._catch_up()
            decided = pace.end_turn()
            count, sampling = self._counts.get(context.index, 0), self.sampling
            pace.begin_turn(
                recorded=self._records(count),
                looked=sampling.samples_flow(count) or sampling.samples_update(count),
            )
            super().before_step(context, may_change)
            self._lost = False
            if decided:
                self._widen(pace)

    def _widen(self, pace: Pace) -> None:
        """Sample at the intervals decided on from the next step on."""
        if pace.intervals != self.sampling.intervals:
            self.sampling = self.settings.at(pace.intervals)
            self.run = self._said(self.run)
        if not pace.on_trial:
            self._tell()

    def after_step(self) -> None:
        """The step was made: see `Engine.after_step`. Of one that is not read nothing is due."""
        if self._reads:
            with self.pace or UNTIMED:
                super().after_step()

    def log(self) -> None:
        """The step just made falls on the logging interval: see `Engine.log`."""
        with self.pace or UNTIMED:
            super().log()

    # ------------------------------------------------------------------ telling

    def _tell(self) -> None:
        """Say once that the budget was exceeded and what was done about it."""
        pace = self._pace
        if pace.measured is None or pace.told:
            return
        pace.told = True
        if self.audience.listening:
            message = what_was_done(pace, self.settings)
            warnings.warn(message, GradWatchWarning, stacklevel=2)

    def _said(self, run: RunInfo) -> RunInfo:
        """Return what the report says of the run, with the intervals if they are not as asked."""
        if self._pace.intervals == self._pace.asked:
            return run
        said = {"sampling": of_intervals(self._pace, self.settings)}
        return replace(run, environment=dict(run.environment) | said)

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to decide as this one would: plain Python values."""
        return super().state_dict() | {"pace": self._pace.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Take up where `state_dict` left off; parts that do not match start anew."""
        done = super().load_state_dict(state)
        if "pace" in state:
            self._pace.load_state_dict(state["pace"])
        return done
