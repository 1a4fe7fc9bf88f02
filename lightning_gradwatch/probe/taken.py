"""One reading between the device and the host: its tensors, and what they become there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_gradwatch.layers import combine_norms
from lightning_gradwatch.probe import scaler as amp
from lightning_gradwatch.probe.gathered import Held
from lightning_gradwatch.probe.reading import Reading
from lightning_gradwatch.probe.recurrent import profile
from lightning_gradwatch.probe.sharded import ShardedNorms
from lightning_gradwatch.probe.step import Aftermath, OpenStep
from lightning_gradwatch.probe.wide import Measured, wide_total
from lightning_gradwatch.sample import Floats, Flow, Sample, TimeProfile


@dataclass
class Taken:
    """What was taken of one optimizer step, still on the device.

    Attributes:
        step: The step.
        before: The step whose late numbers come along, if one is outstanding.
        norm_type: The p of the norms.
        grads: The gradients that are whole on this process; let go of once `norms` are there, so
            that numbers under way keep no gradient alive.
        held: Their parameters.
        shards: How to read those that are not, and what all processes have added up of them.
        losses: Each loss with the factor that undoes what the loop divided it by.
        scale: The loss scale; None without a scaler.
        scaled: Whether the gradients still carry it.
        lr: Learning rate.
        squares: Squares by time step of recurrent modules.
        flow: What module hooks saw.
        norms: Norms of `grads`, left on the device; None: they are read with a look at them.
    """

    step: OpenStep
    before: OpenStep | None
    norm_type: float
    grads: Sequence[Tensor]
    held: Held
    shards: tuple[ShardedNorms, Tensor] | None
    losses: list[tuple[Tensor, float]]
    scale: Tensor | None
    scaled: bool
    lr: float | Tensor
    squares: dict[str, Tensor]
    flow: Reading
    norms: Measured | None = None

    @property
    def extra(self) -> list[Tensor]:
        """Everything but the norms of `grads`."""
        return [
            *(loss for loss, _ in self.losses),
            *self.squares.values(),
            *self.flow.tensors,
            *([] if self.scale is None else [self.scale]),
            *([self.lr] if isinstance(self.lr, Tensor) else []),
            *([] if self.shards is None else [self.shards[1]]),
            *([] if self.before is None else self.before.tensors),
        ]

    @property
    def tensors(self) -> list[Tensor]:
        """Everything, norms first: for numbers that nobody waits for."""
        return [*(vector for _, vector in self.norms or ()), *self.extra]

    @cached_property
    def total(self) -> Tensor | None:
        """Norm over all gradients, as they were measured, on the device, shape (); None: none."""
        vectors = [vector for _, vector in self.norms or ()]
        if not vectors and self.shards is None:
            return None
        total = wide_total(vectors, self.norm_type)
        if self.shards is None:
            return total
        shards, vector = self.shards
        return shards.joined(vector, total.reshape(1)).reshape(())

    def is_ordinary(self, raw: Floats, fetched: Sequence[Floats]) -> bool:
        """Whether gradients and losses are finite and no scaler decides on the step.

        Args:
            raw: Norms of `grads`, on the host.
            fetched: `extra`, on the host.
        """
        if self.scale is not None:
            return False
        total = sum(raw.tolist())  # NaN or Inf if any is; with cold caches numpy takes far longer
        for loss in fetched[: len(self.losses)]:
            total += float(loss[0])
        return math.isfinite(total)

    def broken(self) -> Tensor:
        """Return whether `nonfinite` will be found: in a gradient or a loss, on the device."""
        total = self.total
        fine = [torch.isfinite(loss.reshape(())) for loss, _ in self.losses]
        if total is not None and (self.is_watched or not fine):
            fine.append(torch.isfinite(total))
        device = fine[0].device if total is None else total.device
        return torch.logical_not(torch.stack([flag.to(device) for flag in fine]).all())

    @property
    def is_watched(self) -> bool:
        """Whether any of the gradients belongs to the layout."""
        spread = () if self.shards is None else self.shards[0].spread
        return bool((self.held.columns >= 0).any()) or any(column >= 0 for _, column in spread)

    def finish(self, fetched: Sequence[Floats]) -> tuple[Sample, Aftermath | None]:
        """Return the sample, and the aftermath of the step before.

        Args:
            fetched: `tensors`, on the host.
        """
        parts = self.norms or []
        raw = np.zeros(len(self.held.keys))
        for (places, _), vector in zip(parts, fetched[: len(parts)], strict=True):
            raw[places] = vector
        return self.make(raw, fetched[len(parts) :])

    def make(self, raw: Floats, fetched: Sequence[Floats]) -> tuple[Sample, Aftermath | None]:
        """Return the same, given the norms of `grads` and `extra`, on the host."""
        context = self.step.context
        taken = iter(fetched)
        losses = [(float(next(taken)[0]), factor) for _, factor in self.losses]
        by_time = {name: next(taken) for name in self.squares}
        seen = [next(taken) for _ in self.flow.tensors]
        loss_scale = float(next(taken)[0]) if self.scale is not None else 1.0
        rate = float(next(taken)[0]) if isinstance(self.lr, Tensor) else float(self.lr)
        columns = self.held.columns
        if self.shards is not None:
            there, whole = self.shards[0].result(next(taken))
            columns = np.append(columns, np.array(there, np.intp))
            raw = np.append(raw, whole)
        aftermath = None if self.before is None else self.before.finish(list(taken))

        norms = raw / (loss_scale if self.scaled else 1.0)
        # In the short last window of an epoch the loss was divided by more than was added up.
        flow_scale = loss_scale * context.accumulated
        sample = self._sample(columns, norms)
        loss = sum(value * factor for value, factor in losses) / loss_scale if losses else math.nan
        sample = replace(
            sample,
            loss=loss / len(losses) if losses and context.mean_loss else loss,
            has_loss=bool(losses),
            lr=rate,
            amp_overflow=amp.is_active(context.scaler) and not bool(np.isfinite(norms).all()),
            flow=_join(
                tuple(profile(n, s, flow_scale) for n, s in by_time.items()),
                self.flow.finish(seen, flow_scale),
            ),
        )
        self.step.global_norm, self.step.overflow = sample.global_norm, sample.amp_overflow
        return sample, aftermath

    def _sample(self, columns: npt.NDArray[np.intp], norms: Floats) -> Sample:
        context, layout = self.step.context, self.step.layout
        width = len(layout.parameters)
        watched = columns >= 0
        has_grad = np.zeros(width, np.bool_)
        has_grad[columns[watched]] = True
        grad_norm = np.full(width, np.nan)
        grad_norm[columns[watched]] = norms[watched]
        by_layer = layout.reduce_layers(np.where(has_grad, grad_norm, 0.0), self.norm_type)
        if width:
            by_layer[~np.maximum.reduceat(has_grad, layout.layer_starts)] = np.nan
        return Sample(
            step=context.step,
            layout=layout,
            grad_norm=grad_norm,
            has_grad=has_grad,
            layer_grad_norm=by_layer,
            global_norm=combine_norms(norms, self.norm_type) if len(norms) else math.nan,
            optimizer=context.index,
            batch_idx=context.batch_idx,
            epoch=context.epoch,
            norm_type=self.norm_type,
            accumulated=context.accumulated,
        )


def _join(profiles: tuple[TimeProfile, ...], flow: Flow | None) -> Flow | None:
    """Put what was seen at inputs and at outputs together."""
    if flow is None:
        return Flow(profiles) if profiles else None
    return replace(flow, time_profiles=(*profiles, *flow.time_profiles))
