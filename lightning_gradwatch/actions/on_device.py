"""What an action may do to a step whose numbers nobody has seen: decided by the device itself.

On an accelerator, a look at the norm before the step makes the host wait for the backward pass.
These changes need none: the factor is a number on the device, 1 where nothing has to be done, and
what was done is known when the step's numbers have come to the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions import gradients as change
from lightning_gradwatch.actions.learning_rate import Change
from lightning_gradwatch.actions.pending import Outcome, Pending, Seen
from lightning_gradwatch.probe.scaler import gradients_are_scaled, is_active, scale_tensor
from lightning_gradwatch.sample import Floats

#: Largest factor by which a norm is divided: its inverse is the least normal number of float32.
MOST = 2.0**126


class DeviceTraining:
    """One optimizer step that is about to be made, as `Training`, without numbers.

    Args:
        norm: Norm of all gradients on the device, shape (), as they are: with a loss scale.
        norm_type: Its p.
        optimizer: The optimizer that is about to step.
        gradients: Returns the parameters of this optimizer that have a gradient.
        total: Returns the norm of all gradients as they are now, shape (), for a p.
        scaler: The gradient scaler (AMP), if any.
        last: Nobody changes or reads the gradients between the actions and the step.
        broken: Returns whether a gradient or the loss is not finite, shape ().

    Attributes:
        norm: Norm of all gradients as they are now, without a loss scale, shape ().
        skipped: Whether the step is left out, shape (); None: it is not.
    """

    def __init__(
        self,
        norm: Tensor,
        norm_type: float,
        optimizer: Optimizer | None,
        gradients: Callable[[], Sequence[nn.Parameter]],
        *,
        total: Callable[[float], Tensor],
        scaler: Any = None,
        last: bool = False,
        broken: Callable[[], Tensor],
    ) -> None:
        self.norm_type = norm_type
        self.skipped: Tensor | None = None
        self._broken = broken
        self.optimizer = optimizer
        self._gradients = gradients
        self._total = total
        self._scaler = scaler
        self._last = last
        self._divisor: Tensor | None = None
        self._scale = self._loss_scale()
        self.norm = norm if self._scale is None else norm / self._scale

    def clip_grad_norm(
        self, max_norm: float, norm_type: float, record: Callable[[int, Change], ActionRecord]
    ) -> Pending:
        """Scale all gradients together so that their norm is at most `max_norm`.

        As `Training.clip_grad_norm` does. A norm more than 2^126 times too large is divided by
        that, and no more.
        """
        same = norm_type == self.norm_type
        norm = self.norm if same else self._measured(norm_type)
        fine = torch.logical_not((norm > max_norm) & torch.isfinite(norm))
        divisor = (norm / max_norm).clamp(max=MOST).masked_fill(fine, 1.0)
        if self._optimizer_divides():
            self._divisor = divisor if self._divisor is None else self._divisor * divisor
        else:
            # Gradients may keep their loss scale: a factor is a factor.
            factor = (max_norm / norm).clamp(min=1.0 / MOST).masked_fill(fine, 1.0)
            change.multiply_by(self._gradients(), factor)
        self.norm = self.norm / divisor

        def settle(seen: Seen, before: float, numbers: list[Floats]) -> Outcome:
            measured = float(numbers[0][0])
            if not math.isfinite(measured) or measured <= max_norm:
                return Outcome(before)
            was = before if same else measured
            after = max_norm if was / max_norm <= MOST else was / MOST
            done = record(seen.sample.step, Change(was, after))
            return Outcome(after if same else before * (after / was), done)

        return Pending([norm], settle)

    def clip_grad_value(
        self, value: float, record: Callable[[int, Change], ActionRecord]
    ) -> Pending | None:
        """Limit every gradient element to [-value, value], as `Training.clip_grad_value` does."""
        self._settle_divisor()
        if self.optimizer is not None and gradients_are_scaled(self._scaler, self.optimizer):
            # Before anything is changed: it looks for the Inf that makes the scaler skip.
            self._scaler.unscale_(self.optimizer)
            self._scale = None
        parameters = list(self._gradients())
        if not parameters:
            return None
        top = change.largest_on_device(parameters)
        change.clamp(parameters, value)
        self.norm = self._measured(self.norm_type)

        def settle(seen: Seen, before: float, numbers: list[Floats]) -> Outcome:
            largest = float(numbers[0][0])
            if seen.sample.amp_overflow or not largest > value:
                return Outcome(before)
            done = record(seen.sample.step, Change(largest, value))
            return Outcome(float(numbers[1][0]), done)

        return Pending([top, self.norm], settle)

    def skip_broken(self) -> Tensor:
        """Leave the step out if a gradient or the loss is not finite; return whether, shape ().

        The optimizer does it in passing, as it does for a gradient scaler (see `can_skip`). Unlike
        `Training.skip_step` this leaves the gradients where they are.
        """
        self.skipped = self._broken()
        return self.skipped

    def finish(self) -> tuple[str, ...]:
        """Leave to the optimizer what it can do in passing; after the last action.

        Returns:
            Names of its attributes that are to be removed after the step.
        """
        if self.optimizer is None:
            return ()
        left = {}
        if self._divisor is not None:
            left["grad_scale"] = self._divisor.to(torch.float32)
        if self.skipped is not None:
            left["found_inf"] = self.skipped.to(torch.float32)
        vars(self.optimizer).update(left)
        return tuple(left)

    def _optimizer_divides(self) -> bool:
        """Whether the step itself can divide the gradients: see `Training`."""
        groups = [] if self.optimizer is None else self.optimizer.param_groups
        fused = bool(groups) and all(group.get("fused") for group in groups)
        return self._last and not is_active(self._scaler) and fused

    def _settle_divisor(self) -> None:
        """Do here what was left to the optimizer: someone wants to look at the gradients."""
        if self._divisor is not None:
            change.multiply_by(self._gradients(), 1.0 / self._divisor)
            self._divisor = None

    def _loss_scale(self) -> Tensor | None:
        if self.optimizer is None or not gradients_are_scaled(self._scaler, self.optimizer):
            return None
        return scale_tensor(self._scaler)

    def _measured(self, norm_type: float) -> Tensor:
        self._settle_divisor()
        norm = self._total(norm_type)
        return norm if self._scale is None else norm / self._scale
