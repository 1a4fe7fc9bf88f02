"""What an action may do to a step whose numbers nobody has seen: decided by the device itself.

On an accelerator, a look at the norm before the step makes the host wait for the backward pass.
These changes need none: the factor is a number on the device, 1 where nothing has to be done, and
what was done is known when the step's numbers have come to the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions import gradients as change
from lightning_gradwatch.actions.learning_rate import Change
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.probe.scaler import gradients_are_scaled, is_active, scale_tensor
from lightning_gradwatch.sample import Floats, Sample

#: Largest factor by which a norm is divided: its inverse is the least normal number of float32.
MOST = 2.0**126


@dataclass
class Seen:
    """A step whose numbers have come to the host.

    Attributes:
        sample: What it looked like.
        findings: What the detectors say of it.
        stop: Ends training after the step that is being made, given the reason.
    """

    sample: Sample
    findings: Sequence[Finding]
    stop: Callable[[str], None]


@dataclass
class Outcome:
    """What a change has come to.

    Attributes:
        norm: Norm of all gradients afterwards.
        record: What was done, in words; None if nothing was.
        skipped: The step was left out.
    """

    norm: float
    record: ActionRecord | None = None
    skipped: bool = False


@dataclass
class Pending:
    """A change made on the device.

    Attributes:
        tensors: The numbers that tell what it has come to.
        settle: Says so, given the step, the norm before this change, and `tensors` on the host.
    """

    tensors: list[Tensor]
    settle: Callable[[Seen, float, list[Floats]], Outcome]


@dataclass
class Setup:
    """What an action may want to know before it leaves its decision to the device.

    Attributes:
        optimizer: The optimizer that is about to step.
        scaler: The gradient scaler (AMP), if any.
        ranks: How many processes train together.
        detectors: Who judges.
    """

    optimizer: Optimizer | None
    scaler: Any = None
    ranks: int = 1
    detectors: Sequence[Any] = ()


@runtime_checkable
class DeviceAction(Protocol):
    """An action that can do without a look at the numbers of the step.

    Its `apply` has to come from the same class: whoever overrides one of both overrides both. With
    a method `fits_device(setup)` it says of each step whether it can.
    """

    def on_device(self, training: DeviceTraining) -> Pending | None:
        """Change the step that is about to be made; None: there is nothing to change."""
        ...


def acts_on_device(action: Any) -> bool:
    """Whether the device can decide for this action.

    Example:
        >>> from lightning_gradwatch.actions import ClipGradNorm, ZClip
        >>> acts_on_device(ClipGradNorm(1.0)), acts_on_device(ZClip())
        (True, False)
    """
    kind = type(action)
    owners = [
        next((k for k in kind.__mro__ if name in vars(k)), None) for name in ("apply", "on_device")
    ]
    return owners[0] is not None and owners[0] is owners[1]


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


class Ahead:
    """The changes made to one step, until its numbers are on the host.

    Args:
        pending: `(action, change)` in the order in which they were made.
    """

    def __init__(self, pending: Sequence[tuple[Any, Pending]] = ()) -> None:
        self.pending = list(pending)

    @property
    def tensors(self) -> list[Tensor]:
        """Everything that has to come to the host."""
        return [tensor for _, pending in self.pending for tensor in pending.tensors]

    def settle(self, seen: Seen, fetched: Sequence[Floats]) -> tuple[list[ActionRecord], Outcome]:
        """Return what was done, and how the gradients were left.

        Args:
            seen: The step.
            fetched: `tensors`, on the host.
        """
        numbers = iter(fetched)
        records, outcome = [], Outcome(seen.sample.global_norm)
        for _, pending in self.pending:
            given = [next(numbers) for _ in pending.tensors]
            if outcome.skipped:  # there is nothing left to change
                continue
            outcome = pending.settle(seen, outcome.norm, given)
            if outcome.record is not None:
                records.append(outcome.record)
        return records, outcome


def can_skip(optimizer: Optimizer | None) -> bool:
    """Whether a step of this optimizer changes nothing if its attribute `found_inf` is 1.

    Fused optimizers of torch do so for a gradient scaler. SGD does not know then what it made of
    the momentum of its very first step, which lies in memory that nobody has written to.

    Example:
        >>> weights = [nn.Parameter(torch.zeros(2))]
        >>> can_skip(torch.optim.Adam(weights, fused=True)), can_skip(torch.optim.Adam(weights))
        (True, False)
    """
    if not isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)):
        return False
    if not type(optimizer).__module__.startswith("torch.optim"):
        return False
    if not all(group.get("fused") for group in optimizer.param_groups):
        return False
    return not isinstance(optimizer, torch.optim.SGD) or all(
        not group["momentum"]
        or all(
            p.grad is None or optimizer.state[p].get("momentum_buffer") is not None
            for p in group["params"]
        )
        for group in optimizer.param_groups
    )
