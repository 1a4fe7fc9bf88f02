"""Lowers the learning rate on a finding, so that it stays lowered."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.actions.trigger import Trigger
from lightning_gradwatch.errors import GradWatchWarning, check_codes, check_int, check_number
from lightning_gradwatch.finding import Finding


@dataclass
class _Clock:
    """What is remembered of one optimizer."""

    steps: int = 0
    decayed_at: int | None = None
    #: Learning rates as last seen after a decay, while something might write the old ones back.
    watched: list[float] = field(default_factory=list)


class DecayLR:
    """Multiplies the learning rate by `factor` when gradients explode, for this step and for good.

    The whole schedule is lowered, not only its present value: starting, largest and final rates in
    the parameter groups and in the schedulers. Under every scheduler of torch the rate is from then
    on `factor` times what it would have been, and a checkpoint of optimizer and scheduler keeps it
    so. If a scheduler of another kind writes the old rate back, that is said once.

    Each optimizer is lowered by itself, for the findings of its own steps. A scheduler created
    later, such as that of `StochasticWeightAveraging`, begins with the rate it is given.

    Args:
        factor: 0 < factor < 1.
        on: Finding codes that lower the rate.
        cooldown: Optimizer steps (of that optimizer) that pass after a decay before the next one,
            >= 0; the run needs some to show what the decay did. Steps that overflow under a
            gradient scaler do not count.
        min_lr: No parameter group is lowered below this, >= 0. At `min_lr` nothing happens.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of range, or an unknown code.

    Example:
        >>> DecayLR(factor=0.5, cooldown=200, min_lr=1e-6)
        DecayLR(factor=0.5, on=('exploding',), cooldown=200, min_lr=1e-06)
    """

    def __init__(
        self,
        factor: float = 0.5,
        on: Sequence[str] = ("exploding",),
        cooldown: int = 100,
        min_lr: float = 0.0,
    ) -> None:
        self.factor = check_number("factor", factor, above=0, below=1)
        self.on = check_codes("on", on)
        self.cooldown = check_int("cooldown", cooldown, at_least=0)
        self.min_lr = check_number("min_lr", min_lr, at_least=0)
        self._trigger = Trigger(self.on)
        self._clocks: dict[int, _Clock] = {}
        self._warned: set[str] = set()

    def apply(self, findings: Sequence[Finding], training: Training) -> ActionRecord | None:
        """Lower the learning rate if one of the codes was found on any rank, and none lately."""
        why = self._trigger(findings, training)
        if training.sample.amp_overflow:
            return None
        clock = self._clocks.setdefault(training.sample.optimizer, _Clock())
        clock.steps += 1
        if clock.watched:
            self._watch(clock, training)
        if why is None or self._cooling(clock):
            return None
        change = training.scale_lr(self.factor, self.min_lr)
        if change is None:
            if clock.decayed_at is None:
                self._warn_once(
                    "floor",
                    f"DecayLR cannot lower a learning rate of {training.learning_rates()}: "
                    f"min_lr is {self.min_lr:g}",
                )
            return None
        clock.decayed_at = clock.steps
        clock.watched = [] if training.scaling_lr_is_exact() else training.learning_rates()
        return ActionRecord(type(self).__name__, training.step, why, *change)

    def _cooling(self, clock: _Clock) -> bool:
        return clock.decayed_at is not None and clock.steps - clock.decayed_at <= self.cooldown

    def _watch(self, clock: _Clock, training: Training) -> None:
        """Notice a learning rate that jumps back up within one step, by half the decay or more.

        A schedule that rises does so in smaller steps; torch's own, which may jump, are not
        watched, because they are scaled exactly.
        """
        now = training.learning_rates()
        jump = 1 / math.sqrt(self.factor)
        back = [
            (old, new)
            for old, new in zip(clock.watched, now, strict=False)
            if old > 0 and new >= old * jump
        ]
        clock.watched = now
        if back:
            clock.watched = []
            self._warn_once(
                "undone",
                f"DecayLR lowered the learning rate to {back[0][0]:.4g}, but by step "
                f"{training.step} something has set it back to {back[0][1]:.4g}: a scheduler that "
                "is not one of torch.optim.lr_scheduler, or code of your own. The decay has no "
                "lasting effect; lower the rate there.",
            )

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(message, GradWatchWarning, stacklevel=2)

    def state_dict(self) -> dict[str, Any]:
        """Return the clocks, by index of the optimizer."""
        return {"clocks": {str(index): asdict(clock) for index, clock in self._clocks.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._clocks = {int(index): _Clock(**c) for index, c in state_dict["clocks"].items()}

    def reset(self) -> None:
        """Forget earlier decays; the learning rate itself stays as it is."""
        self._clocks.clear()
        self._warned.clear()

    def __repr__(self) -> str:
        return (
            f"DecayLR(factor={self.factor}, on={self.on}, cooldown={self.cooldown}, "
            f"min_lr={self.min_lr})"
        )
