"""One optimizer step as the probe knows it: what the loop tells, and what it leaves behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_gradwatch.layers import Layout
from lightning_gradwatch.probe.gathered import Gradients
from lightning_gradwatch.probe.updates import assemble
from lightning_gradwatch.sample import Floats, Update

if TYPE_CHECKING:
    from lightning_gradwatch.culprit.batches import Kept
    from lightning_gradwatch.culprit.find import Replay


@dataclass(frozen=True)
class StepContext:
    """What the loop knows of the step that is about to be made.

    Attributes:
        step: Position on the loggers' x axis.
        optimizer: The optimizer; None in a loop that gave none.
        index: Its index.
        scaler: The gradient scaler, if there is one.
        accumulated: Micro-batches seen over micro-batches planned.
        mean_loss: Losses of several backward passes are averaged (accumulation) and not summed.
        batch_idx: Index of the batch.
        epoch: Index of the epoch.
        replay: Returns how to make the step's forward pass again; None: nobody knows.
        kept: Returns the (micro-)batches of the step, as far as they were kept.
        lasting: `replay` can still be made some steps later, given the batches.
    """

    step: int
    optimizer: torch.optim.Optimizer | None = None
    index: int = 0
    scaler: object = None
    accumulated: float = 1.0
    mean_loss: bool = False
    batch_idx: int = 0
    epoch: int = 0
    replay: Callable[[], Replay] | None = None
    kept: Callable[[], Sequence[Kept]] = tuple
    lasting: bool = False


@dataclass(frozen=True)
class Aftermath:
    """What became known of a step after it was made; `clipped_norm` NaN: it was not made.

    The columns of `update` are those of `layout`, which may have changed since.
    """

    step: int
    index: int
    layout: Layout
    clipped_norm: float = math.nan
    update: Update | None = None


@dataclass
class OpenStep:
    """A step between its reading and its aftermath.

    What is known on the host only (`global_norm`, `overflow`, `clipped_norm`) may be filled in
    after the step was made, but before `finish`.

    Attributes:
        context: What the loop knows of it.
        layout: Names of the parameters.
        moving: The gradients it uses; empty once it was made.
        fine: Whether all gradients are finite, on the device, shape (); None: nobody asks, because
            no scaler would leave the step out.
        global_norm: Norm over all gradients before the step.
        overflow: A scaler found Inf, or an action left the step out: nothing moved.
        clipped_norm: The norm as our own actions left it; NaN if they dropped the gradients.
        may_change: Others may change the gradients before they are used.
        version: What `Gradients.version` said when we were done with them; None: unknown.
        made: Whether the optimizer really stepped.
        columns: Parameters whose change was measured.
        measured: The norm after others were done with the gradients, on the device.
        squares: What `UpdateMeter.after` returned, on the device.
    """

    context: StepContext
    layout: Layout
    moving: Gradients
    fine: Tensor | None = None
    global_norm: float = math.nan
    overflow: bool = False
    clipped_norm: float = math.nan
    may_change: bool = False
    version: int | None = None
    made: bool = False
    columns: list[int] = field(default_factory=list)
    measured: Tensor | None = None
    squares: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """Numbers that are on the device only."""
        return [t for t in (self.measured, self.squares) if t is not None]

    def finish(self, late: Sequence[Floats]) -> Aftermath:
        """Return the aftermath.

        Args:
            late: `tensors`, on the host.
        """
        step, index = self.context.step, self.context.index
        if self.overflow or not self.made:
            return Aftermath(step, index, self.layout)
        numbers = list(late)
        clipped = self.clipped_norm
        if self.measured is not None:
            clipped = float(numbers.pop(0)[0])
        update = None
        if self.squares is not None:
            shrunk = 0.0 < clipped < self.global_norm < math.inf
            update = assemble(
                step,
                index,
                len(self.layout.parameters),
                self.columns,
                numbers.pop(0),
                self.global_norm / clipped if shrunk else 1.0,
            )
        return Aftermath(step, index, self.layout, clipped, update)
