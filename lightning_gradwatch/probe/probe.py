"""The probe: turns the gradients of one optimizer step into a `Sample`, in one transfer.

What a step leaves behind (the norm after someone clipped, the change of the weights) exists only
after it. Those numbers wait on the device and come along with the next reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lightning_gradwatch.errors import ConfigurationError
from lightning_gradwatch.layers import Layout, combine_norms
from lightning_gradwatch.probe import scaler as amp
from lightning_gradwatch.probe.flow import FlowProbe
from lightning_gradwatch.probe.gate import BackwardGate
from lightning_gradwatch.probe.gathered import Gradients
from lightning_gradwatch.probe.host import Host
from lightning_gradwatch.probe.norms import NormReader
from lightning_gradwatch.probe.order import ExecutionOrder
from lightning_gradwatch.probe.parameters import ParameterMap
from lightning_gradwatch.probe.recurrent import TimeProbe, profile
from lightning_gradwatch.probe.sharded import ShardedNorms, is_sharded
from lightning_gradwatch.probe.updates import UpdateMeter, assemble
from lightning_gradwatch.sample import Floats, Flow, Sample, TimeProfile, Update
from lightning_gradwatch.settings import Settings

if TYPE_CHECKING:
    from lightning_gradwatch.culprit.batches import Kept
    from lightning_gradwatch.culprit.find import Replay


#: The layout where no gradient can be read.
_NOTHING = Layout((), (), (), (), (), ())


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
class _Open:
    """A step between its reading and its aftermath."""

    context: StepContext
    global_norm: float
    layout: Layout
    moving: Gradients
    overflow: bool
    may_change: bool = False
    version: int | None = None
    clipped_norm: float = math.nan
    columns: list[int] = field(default_factory=list)
    measured: Tensor | None = None
    squares: Tensor | None = None


class Probe:
    """Reads one module's gradients.

    Args:
        settings: What to read.
        failed: Told of an exception inside a module hook.
        trusted: `.grad` holds the gradient; otherwise it is not looked at.
    """

    def __init__(
        self, settings: Settings, failed: Callable[[Exception], None], trusted: bool = True
    ) -> None:
        self._settings = settings
        self._trusted = trusted
        self._failed = failed
        self.host = Host()
        self._norms = NormReader(self.host, settings.norm_type)
        self._updates = UpdateMeter()
        self._losses: list[tuple[Tensor, float]] = []
        self._open: _Open | None = None
        self._plan: ShardedNorms | None = None
        self._joined = False  # whether this process has taken part in the collective that is due
        self._again: ShardedNorms | None = None

    def attach(self, module: nn.Module) -> None:
        """Learn the module's parameters and hook its layers until the first step.

        Raises:
            ConfigurationError: `include` and `exclude` match none of the parameters.
        """
        self.parameters = ParameterMap(module, self._settings.include, self._settings.exclude)
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
            del self.parameters, self._time, self._flow, self.gate
        self._updates.forget()
        self._losses.clear()
        self._open = self._plan = self._again = None

    def arm_flow(self, several: bool = False) -> None:
        """Hook the modules for the coming step.

        Args:
            several: Several optimizers may step in this batch: stay armed when one has.
        """
        self._keep_armed = several
        self._time.arm()
        self._flow.arm()

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
        self._joined = False
        if self._order is not None:
            self.parameters.reorder(self._order.finish())
            self._order = None
        moving = self.parameters.gradients(context.optimizer) if self._trusted else Gradients()
        shards = self._shards(context)
        dense = moving.those(lambda grad: not is_sharded(grad)) if shards else moving
        squares = self._time.take(self._keep_armed)
        flow = self._flow.take(self._keep_armed)
        scale_now = amp.scale_tensor(context.scaler)
        groups = context.optimizer.param_groups if context.optimizer is not None else []
        lr = groups[0].get("lr", math.nan) if groups else math.nan
        extra = [loss for loss, _ in self._losses]
        extra += [*squares.values(), *flow.tensors]
        late = self._late_tensors()
        extra += [t for t in (scale_now, lr if isinstance(lr, Tensor) else None) if t is not None]
        extra += [self._take_part(shards)] if shards else []
        raw, fetched = self._norms.read(dense.grads, dense.held.keys, [*extra, *late])
        taken = iter(fetched)
        losses = [(float(next(taken)[0]), factor) for _, factor in self._losses]
        by_time = {name: next(taken) for name in squares}
        seen = [next(taken) for _ in flow.tensors]
        loss_scale = float(next(taken)[0]) if scale_now is not None else 1.0
        rate = float(next(taken)[0]) if isinstance(lr, Tensor) else float(lr)
        columns = dense.held.columns
        if shards:
            spread, whole = shards.result(next(taken))
            columns = np.append(columns, np.array(spread, np.intp))
            raw = np.append(raw, whole)
        aftermath = self._close(list(taken))
        self._losses.clear()

        scaled = context.optimizer is not None and amp.gradients_are_scaled(
            context.scaler, context.optimizer
        )
        norms = raw / (loss_scale if scaled else 1.0)
        # In the short last window of an epoch the loss was divided by more than was added up.
        flow_scale = loss_scale * context.accumulated
        sample = self._sample(context, columns, norms)
        loss = sum(value * factor for value, factor in losses) / loss_scale if losses else math.nan
        sample = replace(
            sample,
            loss=loss / len(losses) if losses and context.mean_loss else loss,
            has_loss=bool(losses),
            lr=rate,
            amp_overflow=amp.is_active(context.scaler) and not bool(np.isfinite(norms).all()),
            flow=_join(
                tuple(profile(n, s, flow_scale) for n, s in by_time.items()),
                flow.finish(seen, flow_scale),
            ),
        )
        self._open = _Open(context, sample.global_norm, sample.layout, moving, sample.amp_overflow)
        return sample, aftermath

    def _shards(self, context: StepContext) -> ShardedNorms | None:
        """Return how to read sharded gradients; None where there are none."""
        spread = self.parameters.sharded(context.optimizer) if self._trusted else []
        if not spread:
            return None
        if self._plan is None or self._plan.spread is not spread:
            self._plan = ShardedNorms(spread, self._settings.norm_type)
        return self._plan

    def _take_part(self, shards: ShardedNorms, failed: bool = False) -> Tensor:
        vector = shards.take_part(failed)
        self._joined = True
        return vector

    def abstain(self, context: StepContext) -> None:
        """The reading of this step failed, or is switched off: keep no other process waiting."""
        shards = self._shards(context)
        if shards and not self._joined:
            self._take_part(shards, failed=True)
        self._joined = False

    def look_again(self, context: StepContext, may_change: bool) -> None:
        """Say whether sharded gradients are to be read after the step as well, on every process.

        Writing to them leaves no trace, so that this cannot be left to what each one sees.
        """
        self._joined = False
        self._again = self._shards(context) if may_change else None

    def abstain_again(self) -> None:
        """The same as `abstain`, after the step."""
        if self._again and not self._joined:
            self._take_part(self._again, failed=True)
        self._again, self._joined = None, False

    def _sample(
        self,
        context: StepContext,
        columns: npt.NDArray[np.intp],
        norms: Floats,
    ) -> Sample:
        layout = self.parameters.layout if self._trusted else _NOTHING
        width = len(layout.parameters)
        watched = columns >= 0
        has_grad = np.zeros(width, np.bool_)
        has_grad[columns[watched]] = True
        grad_norm = np.full(width, np.nan)
        grad_norm[columns[watched]] = norms[watched]
        by_layer = layout.reduce_layers(
            np.where(has_grad, grad_norm, 0.0), self._settings.norm_type
        )
        if width:
            by_layer[~np.maximum.reduceat(has_grad, layout.layer_starts)] = np.nan
        return Sample(
            step=context.step,
            layout=layout,
            grad_norm=grad_norm,
            has_grad=has_grad,
            layer_grad_norm=by_layer,
            global_norm=combine_norms(norms, self._settings.norm_type) if len(norms) else math.nan,
            optimizer=context.index,
            batch_idx=context.batch_idx,
            epoch=context.epoch,
            norm_type=self._settings.norm_type,
            accumulated=context.accumulated,
        )

    def watch_step(self, *, updates: bool, may_change: bool, clipped_norm: float) -> None:
        """Prepare for what the step will show.

        Args:
            updates: Measure how the weights change.
            may_change: Others may still change the gradients before they are used.
            clipped_norm: The norm as our own actions left it; NaN if they dropped the gradients.
        """
        step = self._open
        if step is None or step.overflow:  # a fused optimizer is called then, and does nothing
            return
        step.clipped_norm = clipped_norm
        if may_change and not math.isnan(clipped_norm):
            step.may_change = True
            step.version = step.moving.version()
        if updates:
            self._updates.before(
                [m for m in step.moving if not (is_sharded(m[0]) or is_sharded(m[2]))]
            )

    def after_step(self) -> Aftermath | None:
        """Measure what the step did; return it if no number of it is on the device only."""
        again = self._again
        vector = self._take_part(again) if again else None
        self._again, self._joined = None, False
        step = self._open
        if step is None:
            return None
        step.columns, step.squares = self._updates.after()
        if step.may_change and (vector is not None or step.version != step.moving.version()):
            step.measured = self._measure_again(step, again, vector)
        # Gradients are not kept alive beyond the step that used them.
        step.moving = Gradients()
        if step.measured is None and step.squares is None:
            return self._close([])
        return None

    def _measure_again(
        self, step: _Open, shards: ShardedNorms | None, vector: Tensor | None
    ) -> Tensor:
        """Norm over all gradients as they are now, on the device, shape (1,)."""
        grads = [(p.grad, id(p)) for p, _, _ in step.moving if p.grad is not None]
        grads = [(grad, key) for grad, key in grads if not is_sharded(grad)]
        norm = self._norms.global_norm([g for g, _ in grads], [k for _, k in grads])
        return norm if shards is None or vector is None else shards.joined(vector, norm)

    def flush(self) -> Aftermath | None:
        """Bring outstanding numbers to the host now; None if there are none."""
        if self._open is None:
            return None
        return self._close(self.host.fetch(self._late_tensors()))

    def _late_tensors(self) -> list[Tensor]:
        if self._open is None:
            return []
        return [t for t in (self._open.measured, self._open.squares) if t is not None]

    def _close(self, late: list[Floats]) -> Aftermath | None:
        step, self._open = self._open, None
        if step is None:
            return None
        if step.moving:  # no after_step: the optimizer was never really stepped (AMP overflow)
            self._updates.forget()
            return Aftermath(step.context.step, step.context.index, step.layout)
        clipped = step.clipped_norm
        if step.measured is not None:
            clipped = float(late.pop(0)[0])
        update = None
        if step.squares is not None:
            shrunk = 0.0 < clipped < step.global_norm < math.inf
            update = assemble(
                step.context.step,
                step.context.index,
                len(step.layout.parameters),
                step.columns,
                late.pop(0),
                step.global_norm / clipped if shrunk else 1.0,
            )
        return Aftermath(step.context.step, step.context.index, step.layout, clipped, update)


def _join(profiles: tuple[TimeProfile, ...], flow: Flow | None) -> Flow | None:
    """Put what was seen at inputs and at outputs together."""
    if flow is None:
        return Flow(profiles) if profiles else None
    return replace(flow, time_profiles=(*profiles, *flow.time_profiles))
