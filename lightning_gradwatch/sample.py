"""What one optimizer step looked like: frozen plain numbers; no tensor passes beyond this point.

Shapes: P parameters and L layers of the sample's `Layout`. Norms are float64; NaN where there is
nothing to measure (`has_grad` tells that from a gradient which is NaN).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.layers import Layout

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Update:
    """What one sampled optimizer step did to the weights.

    Exact for parameters of up to 262,144 elements; larger ones are measured on that many evenly
    spaced elements (relative error about 0.2 %), so that memory stays bounded.

    Attributes:
        step: The step that made the change.
        optimizer: Index of the optimizer that made it.
        weight_norm: L2 norm of each weight before the step, shape (P,); NaN where not measured.
        update_norm: L2 norm of its change, shape (P,).
        descent: Minus the inner product of gradient and change, shape (P,): by how much this
            parameter's change lowers the loss to first order. Positive in plain descent.
        agreement: Cosine between this step's gradient and that of the measured step before, over
            all parameters, -1 to 1: near 0 where batches pull in all directions, near 1 where the
            same descent is still ahead. NaN on the first measured step. Taken on at most 1,024
            evenly spaced elements of each parameter.
    """

    step: int
    optimizer: int
    weight_norm: Floats
    update_norm: Floats
    descent: Floats
    agreement: float = float("nan")

    @property
    def update_ratio(self) -> Floats:
        """`update_norm / weight_norm`, shape (P,); Inf for a weight that was zero and moved."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return self.update_norm / self.weight_norm

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python types only, fit for a checkpoint."""
        return {
            "step": self.step,
            "optimizer": self.optimizer,
            "weight_norm": self.weight_norm.tolist(),
            "update_norm": self.update_norm.tolist(),
            "descent": self.descent.tolist(),
            "agreement": float(self.agreement),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Update:
        """Rebuild what `to_dict` returned."""
        names = ("weight_norm", "update_norm", "descent")
        weight, moved, falls = (np.asarray(data[n], np.float64) for n in names)
        agreement = float(data.get("agreement", float("nan")))
        return cls(int(data["step"]), int(data["optimizer"]), weight, moved, falls, agreement)


@dataclass(frozen=True)
class TimeProfile:
    """Gradient of the loss along a recurrent module, time step by time step.

    Attributes:
        module: Dotted name of the `nn.RNN`, `nn.LSTM` or `nn.GRU`, whose input is measured; or of
            a module that is fed its own output (a cell in a loop), whose output is.
        grad_norm: L2 norm over batch and features at each time step, first to last, shape (T,).
    """

    module: str
    grad_norm: Floats


@dataclass(frozen=True)
class ModuleFlow:
    """The backward pass at M modules and functional activations, in order of their outputs.

    There is a row for every module whose output received a gradient, and for every activation
    applied as a function between modules: `relu(fc1)` is `F.relu` of what `fc1` returns, `relu in
    block` is one inside a module without children. Calls of one module are taken together, as
    are the micro-batches of an accumulation window. NaN where there is nothing to measure.

    Attributes:
        names: Dotted names of modules, and functions as above.
        kinds: Class of each module, or name of the function.
        leaf: No child modules (functions count as leaves), shape (M,).
        functional: A function and no module, shape (M,).
        calls: How many calls received a gradient, shape (M,).
        out_grad_norm: L2 norm of the gradient of the loss at the output, without the loss scale,
            of a mean over all samples of the step, however many micro-batches they came in, (M,).
        gain: What backpropagation through this module alone makes of that norm: norm of its
            contribution to the gradient at its inputs over norm at its output, shape (M,). Paths
            around the module do not count. Measured for leaves other than `nn.RNN` and its kind.
        zero_fraction: Share of exact zeros in the output, shape (M,).
        nonfinite_fraction: Share of NaN and Inf in the output, shape (M,).
        saturated_fraction: Share of outputs of a bounded activation at which its derivative is
            below 5 % of its largest, shape (M,).
        units: Number of units of an activation that can be off (ReLU, GELU and their kind), and 0
            elsewhere, shape (M,). Channels after a convolution, features after a linear layer.
        never_active: How many of them were off for every sample of this step, shape (M,).
        active: Which of them were active, packed (see `active_units`); None where too many.
        in_rms: Root mean square of the data at modules with parameters that data enters, shape
            (M,): about 1 if it is standardised. NaN at all others.
        out_rms: Root mean square of the (first) output, shape (M,).
        vectors: Number of vectors it consists of, one for each sample and position: its elements
            over its units, shape (M,); 0 where it was not looked at.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    leaf: Bools
    functional: Bools
    calls: Ints
    out_grad_norm: Floats
    gain: Floats
    zero_fraction: Floats
    nonfinite_fraction: Floats
    saturated_fraction: Floats
    units: Ints
    never_active: Floats
    active: tuple[npt.NDArray[np.uint8] | None, ...]
    in_rms: Floats
    out_rms: Floats
    vectors: Floats

    def active_units(self, row: int) -> Bools | None:
        """Return which units of a row were active for any sample, shape (units,), or None.

        Or-ing this over steps tells which units a whole window of batches never switched on.
        """
        packed = self.active[row]
        if packed is None:
            return None
        return np.unpackbits(packed, count=int(self.units[row]), bitorder="little").astype(np.bool_)

    @property
    def nbytes(self) -> int:
        """Memory of the arrays and masks, without the names."""
        tables = [v for v in vars(self).values() if isinstance(v, np.ndarray)]
        return sum(table.nbytes for table in (*tables, *(a for a in self.active if a is not None)))


@dataclass(frozen=True)
class Flow:
    """What the hooks on modules saw in the backward passes of one step.

    Attributes:
        time_profiles: One per recurrent module whose input carries a gradient, and per cell that
            was called in a loop.
        modules: Gradients and activations module by module; None if no module saw a gradient.
    """

    time_profiles: tuple[TimeProfile, ...] = ()
    modules: ModuleFlow | None = None

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, without the names."""
        profiles = sum(profile.grad_norm.nbytes for profile in self.time_profiles)
        return profiles + (self.modules.nbytes if self.modules is not None else 0)


@dataclass(frozen=True)
class Sample:
    """One optimizer step as it is about to happen, and the aftermath of an earlier one.

    Attributes:
        step: Position on the x axis that the loggers use for the user's metrics.
        layout: Names behind the arrays.
        grad_norm: Gradient norm of each parameter before any clipping, unscaled under AMP,
            shape (P,). NaN where `has_grad` is False.
        has_grad: Whether the parameter belongs to this optimizer and has a gradient, shape (P,).
        layer_grad_norm: The same by layer, shape (L,); NaN where no parameter of it has one.
        global_norm: Norm over all gradients of this optimizer; NaN without any.
        clipped_norm: Norm the optimizer really used; NaN until the step has been made.
        loss: Loss of the batch, mean over the micro-batches of an accumulation window; NaN if
            the backward pass did not go through Lightning.
        lr: Learning rate of the optimizer's first parameter group.
        optimizer: Index of the optimizer in the trainer's list.
        batch_idx: Index of the (last) batch in its epoch.
        epoch: Epoch, from 0.
        norm_type: The p of the norms; `inf` for the maximum norm.
        accumulated: Micro-batches seen over micro-batches planned: below 1 in the short last
            window of an epoch, where every gradient is smaller by this factor.
        amp_overflow: A gradient scaler is at work and found Inf: normal, the step is skipped.
        update: Aftermath of the latest sampled step, given once, in the next sample.
        flow: What module hooks saw, on the steps that have them.
        has_loss: A loss was seen: tells one that is NaN from one that nobody told.
    """

    step: int
    layout: Layout
    grad_norm: Floats
    has_grad: Bools
    layer_grad_norm: Floats
    global_norm: float
    clipped_norm: float = float("nan")
    loss: float = float("nan")
    lr: float = float("nan")
    optimizer: int = 0
    batch_idx: int = 0
    epoch: int = 0
    norm_type: float = 2.0
    accumulated: float = 1.0
    amp_overflow: bool = False
    update: Update | None = None
    flow: Flow | None = None
    has_loss: bool = False

    @cached_property
    def nonfinite(self) -> Bools:
        """Parameters whose gradient holds NaN or Inf, shape (P,)."""
        return self.has_grad & ~np.isfinite(self.grad_norm)

    @cached_property
    def layer_has_grad(self) -> Bools:
        """Layers with at least one gradient, shape (L,)."""
        if not len(self.has_grad):
            return np.zeros(0, dtype=np.bool_)
        found: Bools = np.maximum.reduceat(self.has_grad, self.layout.layer_starts)
        return found
