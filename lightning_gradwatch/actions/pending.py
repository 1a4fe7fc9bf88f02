"""Changes made on a device, on their way to become known: what they are, and who may make them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.sample import Floats, Sample

if TYPE_CHECKING:
    from lightning_gradwatch.actions.on_device import DeviceTraining


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
        >>> weights = [torch.nn.Parameter(torch.zeros(2))]
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
