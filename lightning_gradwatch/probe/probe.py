"""The probe: turns the gradients of one optimizer step into a `Sample`, in one transfer.

What a step leaves behind (the norm after someone clipped, the change of the weights) exists only
after it. Those numbers wait on the device and come along with the next reading.

`read` waits for the numbers. `take` leaves them on the device, for a ring that brings them later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lightning_gradwatch.errors import ConfigurationError
from lightning_gradwatch.layers import Layout
from lightning_gradwatch.probe import scaler as amp
from lightning_gradwatch.probe.collectives import Collectives
from lightning_gradwatch.probe.flow import FlowProbe
from lightning_gradwatch.probe.gate import BackwardGate
from lightning_gradwatch.probe.gathered import NONE, Gradients
from lightning_gradwatch.probe.host import Host
from lightning_gradwatch.probe.norms import NormReader
from lightning_gradwatch.probe.order import ExecutionOrder
from lightning_gradwatch.probe.parameters import ParameterMap
from lightning_gradwatch.probe.recurrent import TimeProbe
from lightning_gradwatch.probe.sharded import ShardedNorms, is_sharded
from lightning_gradwatch.probe.step import Aftermath, OpenStep, StepContext
from lightning_gradwatch.probe.taken import Taken
from lightning_gradwatch.probe.updates import UpdateMeter
from lightning_gradwatch.probe.wide import wide_norms, wide_total
from lightning_gradwatch.sample import Floats, Sample
from lightning_gradwatch.settings import Settings

_NOTHING = Layout((), (), (), (), (), ())


class Probe:
    """Reads one module's gradients.

    Args:
        settings: What to read.
        failed: Told of an exception inside a module hook.
        trusted: `.grad` holds the gradient; otherwise it is not looked at.

    Attributes:
        ahead: Nobody looks at a number before the step is made: `take`, not `read`.
    """

    def __init__(
        self, settings: Settings, failed: Callable[[Exception], None], trusted: bool = True
    ) -> None:
        self._settings = settings
        self._trusted = trusted
        self.ahead = False
        self._failed = failed
        self.host = Host()
        self._norms = NormReader(self.host, settings.norm_type)
        self._updates = UpdateMeter()
        self._losses: list[tuple[Tensor, float]] = []
        self._open: OpenStep | None = None

    def attach(self, module: nn.Module) -> None:
        """Learn the module's parameters and hook its layers until the first step.

        Raises:
            ConfigurationError: `include` and `exclude` match none of the parameters.
        """
        self.parameters = ParameterMap(module, self._settings.include, self._settings.exclude)
        self.collectives = Collectives(self.parameters, self._settings.norm_type)
        nothing = self._trusted and not self.parameters.layout.parameters
        if nothing and self._settings.include is not None:
            names = [name for name, _ in module.named_parameters()]
            raise ConfigurationError(
                f"include={list(self._settings.include)!r}, exclude={self._settings.exclude!r} "
                f"match no trainable parameter. The model has {', '.join(names[:8]) or 'none'}"
                f"{', ...' if len(names) > 8 else ''}"
            )
        self._order: ExecutionOrder | None = ExecutionOrder(module, self._failed)
        self.gate = BackwardGate(module)
        self._time = TimeProbe(module, self._failed, self.gate.counts)
        self._flow = FlowProbe(module, self._failed, self.gate, self.parameters.watches_module)
        self._keep_armed = False

    def detach(self) -> None:
        """Remove every hook and let go of the user's tensors."""
        if hasattr(self, "_time"):
            self.disarm_flow()
            if self._order is not None:
                self._order.finish()
                self._order = None
            del self.parameters, self.collectives, self._time, self._flow, self.gate
        self._updates.forget()
        self._losses.clear()
        self._open = None

    def arm_flow(self, several: bool = False) -> None:
        """Hook the modules for the coming step.

        Args:
            several: Several optimizers may step in this batch: stay armed when one has.
        """
        self._keep_armed = several
        self._time.arm()
        self._flow.arm()

    @property
    def is_armed(self) -> bool:
        """Whether modules are hooked."""
        return self._time.is_armed or self._flow.is_armed

    def disarm_flow(self) -> None:
        """Remove the hooks on modules and forget what they saw."""
        self._time.disarm()
        self._flow.disarm()

    def add_loss(self, loss: Tensor, factor: float) -> None:
        """Remember a loss that is about to be backpropagated, times `factor`, on its device."""
        self._losses.append((loss.detach().mean() if loss.numel() != 1 else loss.detach(), factor))

    def drop_losses(self) -> None:
        """Forget the losses of a step that is not read."""
        self._losses.clear()

    def read(self, context: StepContext) -> tuple[Sample, Aftermath | None]:
        """Read the gradients as they are now; also return the aftermath still outstanding."""
        taken, raw, fetched = self.look(context)
        return taken.make(raw, fetched)

    def look(self, context: StepContext) -> tuple[Taken, Floats, list[Floats]]:
        """Measure the same and look at it; what `Taken.make` makes of it can wait."""
        taken = self._take(context)
        raw, fetched = self._norms.read(taken.grads, taken.held.keys, taken.extra)
        taken.grads = ()
        return taken, raw, fetched

    def take(self, context: StepContext) -> Taken:
        """Measure the same without a look at any number; what comes of it is for a ring."""
        taken = self._take(context)
        taken.norms = wide_norms(taken.grads, self._settings.norm_type)
        taken.grads = ()
        if amp.is_active(context.scaler):
            total = taken.total
            taken.step.fine = None if total is None else torch.isfinite(total)
        return taken

    def _take(self, context: StepContext) -> Taken:
        self.collectives.begin()
        if self._order is not None:
            self.parameters.reorder(self._order.finish())
            self._order = None
        optimizer = context.optimizer
        moving = self.parameters.gradients(optimizer) if self._trusted else NONE
        shards = self._shards(optimizer)
        dense = moving.those(lambda grad: not is_sharded(grad)) if shards else moving
        groups = optimizer.param_groups if optimizer is not None else []
        before = self._leave()
        layout = self.parameters.layout if self._trusted else _NOTHING
        step = self._open = OpenStep(context, layout, moving)
        losses, self._losses = self._losses, []
        return Taken(
            step=step,
            before=before,
            norm_type=self._settings.norm_type,
            grads=dense.grads,
            held=dense.held,
            shards=None if shards is None else (shards, self.collectives.take_part(shards)),
            losses=losses,
            scale=amp.scale_tensor(context.scaler),
            scaled=optimizer is not None and amp.gradients_are_scaled(context.scaler, optimizer),
            lr=groups[0].get("lr", math.nan) if groups else math.nan,
            squares=self._time.take(self._keep_armed),
            flow=self._flow.take(self._keep_armed),
        )

    def _shards(self, optimizer: torch.optim.Optimizer | None) -> ShardedNorms | None:
        return self.collectives.plan(optimizer) if self._trusted else None

    def watch_step(self, *, updates: bool, may_change: bool, clipped_norm: float | None) -> None:
        """Prepare for what the step will show.

        Args:
            updates: Measure how the weights change.
            may_change: Others may still change the gradients before they are used.
            clipped_norm: The norm as our own actions left it; NaN if they dropped the gradients;
                None: it will be known when the numbers are on the host.
        """
        step = self._open
        if step is None or step.overflow:  # a fused optimizer is called then, and does nothing
            return
        if clipped_norm is not None:
            step.clipped_norm = clipped_norm
        if may_change and not (clipped_norm is not None and math.isnan(clipped_norm)):
            step.may_change = True
            step.version = step.moving.version()
        if updates:
            moving: Gradients | list[tuple[nn.Parameter, int, Tensor]] = step.moving
            if self.parameters.sharded(step.context.optimizer):
                moving = [m for m in moving if not (is_sharded(m[0]) or is_sharded(m[2]))]
            self._updates.before(moving)

    def after_step(self) -> OpenStep | None:
        """Measure what the step did; return it if no number of it is on the device only."""
        again = self.collectives.after()
        step = self._open
        if step is None or step.made:  # the latter: steps that are not read came after it
            return None
        step.made = True
        step.columns, step.squares = self._updates.after(step.fine)
        if step.may_change and (again or step.version != step.moving.version()):
            step.measured = self._measure_again(step, again)
        # Gradients are not kept alive beyond the step that used them.
        step.moving = NONE
        return None if step.tensors else self._leave()

    def _measure_again(self, step: OpenStep, shards: tuple[ShardedNorms, Tensor] | None) -> Tensor:
        """Norm over all gradients as they are now, on the device, shape (1,)."""
        found = [(p.grad, id(p)) for p, _, _ in step.moving if p.grad is not None]
        whole = [(grad, key) for grad, key in found if not is_sharded(grad)]
        grads = [grad for grad, _ in whole]
        if self.ahead:
            norm = _total(grads, self._settings.norm_type).reshape(1)
        else:
            norm = self._norms.global_norm(grads, [key for _, key in whole])
        return norm if shards is None else shards[0].joined(shards[1], norm)

    def total(self, context: StepContext, norm_type: float) -> Tensor:
        """Return the norm over all gradients of a step as they are now, on the device, shape ().

        A collective where gradients are sharded.
        """
        moved = [p.grad for p, _ in self.parameters.moved_by(context.optimizer)]
        norm = _total([g for g in moved if g is not None and not is_sharded(g)], norm_type)
        spread = self.parameters.sharded(context.optimizer)
        if spread:
            shards = ShardedNorms(spread, norm_type)
            norm = shards.joined(shards.take_part(), norm.reshape(1)).reshape(())
        return norm

    def flush(self) -> OpenStep | None:
        """Return the step whose aftermath is outstanding; None if there is none."""
        return self._leave()

    def _leave(self) -> OpenStep | None:
        step, self._open = self._open, None
        if step is not None and not step.made:
            # No after_step: the optimizer was never really stepped (AMP overflow).
            self._updates.forget()
            step.moving = NONE
        return step


def _total(grads: Sequence[Tensor], norm_type: float) -> Tensor:
    return wide_total([vector for _, vector in wide_norms(grads, norm_type)], norm_type)
