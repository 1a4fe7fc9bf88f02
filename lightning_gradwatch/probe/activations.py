"""What an activation does to its units: off, saturated, or dead; by its values or its gradients.

An activation is *flat* where its derivative is below 5 % of its largest. Three kinds matter:

* bounded (Sigmoid, Tanh, Softsign, Hardtanh, Hardsigmoid; ReLU6 at its upper end) saturate. The
  output alone tells the derivative, so they are judged by their values, whatever the loss.
* ReLU-like ones have units that can be off for every input.
* GELU, SiLU and Mish have such units too, but their output does not tell on which side it lies.

For the last kind, and for a function such as `F.relu(...)` whose output no module hands on, both
gradients at its node of the graph do: their quotient is the derivative, element by element. Where
the incoming gradient is zero, or so small that 5 % of it is not representable, nothing is claimed:
such elements count in no fraction, and a unit that has only such elements counts as active.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional

from lightning_gradwatch.probe.graph import is_plain

#: A derivative below this share of its largest value counts as flat.
FLAT = 0.05

#: A hair below the limit, so that outputs clipped to it count.
_HAIR = 1 - 1e-6

#: Units of a layer whose activity is passed on one by one; of larger ones only the count is.
MAX_UNITS = 4096


@dataclass(frozen=True)
class Activation:
    """How to read an activation.

    Attributes:
        name: Its name as a function.
        peak: Largest absolute derivative.
        center: Middle of the outputs at which it is steep.
        limit: From this distance to `center` on the output lies on a flat part; Inf: does not say.
        dies: Whether a unit can be off for every input.
        by_gradient: Only gradients tell which units are off.
    """

    name: str
    peak: float = 1.0
    center: float = 0.0
    limit: float = math.inf
    dies: bool = False
    by_gradient: bool = False

    @property
    def saturates(self) -> bool:
        """Whether outputs tell how many of them are saturated."""
        return math.isfinite(self.limit)


RELU = Activation("relu", dies=True)
_SIGMOID = Activation("sigmoid", 0.25, 0.5, math.sqrt(0.25 * (1 - FLAT)))
_TANH = Activation("tanh", limit=math.sqrt(1 - FLAT))
_SOFTSIGN = Activation("softsign", limit=1 - math.sqrt(FLAT))
_HARDSIGMOID = Activation("hardsigmoid", 1 / 6, 0.5, 0.5)
_GELU = Activation("gelu", 1.129, dies=True, by_gradient=True)
_SILU = Activation("silu", 1.0998, dies=True, by_gradient=True)
_MISH = Activation("mish", 1.0885, dies=True, by_gradient=True)
_HARDSWISH = Activation("hardswish", 1.5, dies=True)

#: A module that applies one that dies to its input, somehow: its units are off where they are zero.
DYING = Activation("", dies=True)

_BY_NODE = {
    "Relu": RELU, "Sigmoid": _SIGMOID, "Tanh": _TANH, "Hardsigmoid": _HARDSIGMOID,
    "Gelu": _GELU, "Silu": _SILU, "Mish": _MISH, "Hardswish": _HARDSWISH,
}  # fmt: skip
_BY_CLASS: dict[type[nn.Module], Activation] = {
    nn.ReLU: RELU, nn.Sigmoid: _SIGMOID, nn.Tanh: _TANH, nn.Softsign: _SOFTSIGN,
    nn.Hardsigmoid: _HARDSIGMOID, nn.GELU: _GELU, nn.SiLU: _SILU, nn.Mish: _MISH,
    nn.Hardswish: _HARDSWISH,
}  # fmt: skip


def of_module(module: nn.Module) -> Activation | None:
    """Return what a module applies to each element of its (first) output; None: nothing known."""
    if isinstance(module, nn.Hardtanh):  # ReLU6 is one
        return _clipped(module.min_val, module.max_val)
    if isinstance(module, (nn.RNN, nn.RNNCell)):  # their output is their state
        return _BY_NODE.get(module.nonlinearity.capitalize())
    return next((a for kind, a in _BY_CLASS.items() if isinstance(module, kind)), None)


def of_node(node: Node) -> Activation | None:
    """Return the activation whose backward pass a node of the graph is, if it is one."""
    name = node.name().partition("Backward")[0]
    if name == "Hardtanh":
        bounds: Any = node
        return _clipped(float(bounds._saved_min_val), float(bounds._saved_max_val))
    return _BY_NODE.get(name)


def _clipped(low: float, high: float) -> Activation:
    if low == 0.0:  # only the upper end saturates: at the lower one it is a ReLU
        return Activation("relu6" if high == 6.0 else "hardtanh", limit=high, dies=True)
    return Activation("hardtanh", center=(low + high) / 2, limit=(high - low) / 2)


@dataclass
class Counts:
    """Counts on the device, each with what it is a count of.

    Attributes:
        of: Name to `(count, total)`.
        active: Whether each unit was active for any sample, shape (units,); None: not looked at.
    """

    of: dict[str, tuple[Tensor | float, Tensor | float]] = field(default_factory=dict)
    active: Tensor | None = None

    def measure_input(self, args: tuple[Any, ...]) -> None:
        """Add the squared sum of the first tensor among the arguments, if it is one of floats."""
        data = next((a for a in args if isinstance(a, Tensor)), None)
        if data is None or not is_plain(data):
            return
        if data.is_floating_point() and data.layout == torch.strided:
            self.of["input"] = _square(data.detach())


def by_values(values: Tensor, activation: Activation | None, unit_dim: int) -> Counts:
    """Count zero, non-finite and saturated elements, and say which units were active.

    Args:
        values: Output of a module or function.
        activation: How to read it; None: no activation.
        unit_dim: Dimension of its units, counted from the end.
    """
    counts = Counts()
    if values.is_complex() or values.layout != torch.strided:
        return counts
    if values.is_floating_point():
        counts.of["output"] = _square(values)
        width = values.shape[unit_dim] if values.dim() else 1
        counts.of["vectors"] = (values.numel() / max(width, 1), 1.0)
    by_unit = activation is not None and activation.dies and not activation.by_gradient
    by_unit = by_unit and values.dim() > 1
    if is_at_hand(values):
        _count_here(counts, values, activation, unit_dim if by_unit else None)
    else:
        _count_there(counts, values, activation, unit_dim if by_unit else None)
    return counts


def is_at_hand(values: Tensor) -> bool:
    """Whether numbers may be looked at without waiting for a device."""
    return values.device.type == "cpu" and type(values) is Tensor


def _count_here(
    counts: Counts, values: Tensor, activation: Activation | None, unit_dim: int | None
) -> None:
    """Count on the host, in a third of the time, as flags of one byte and with shortcuts."""
    total = float(values.numel())
    finite = not values.is_floating_point() or math.isfinite(counts.of["output"][0])
    broken = 0.0 if finite else total - float(torch.isfinite(values).sum())
    counts.of["nonfinite"] = (broken, total)
    on = values.bool()  # NaN is
    if unit_dim is not None:
        counts.active = torch.from_numpy(_rows(on, unit_dim).numpy().any(axis=0))
    counts.of["nonzero"] = (float(np.count_nonzero(on.numpy())), total)
    if activation is not None and activation.saturates:
        size = (values - activation.center if activation.center else values).abs()
        beyond = size.float().numpy() > activation.limit * _HAIR  # of NaN it is false
        counts.of["saturated"] = (float(np.count_nonzero(beyond)), total)


def _count_there(
    counts: Counts, values: Tensor, activation: Activation | None, unit_dim: int | None
) -> None:
    """Count on a device without a look at any number: with arithmetic, no copy to the host."""
    total = float(values.numel())
    broken = torch.nan_to_num(values - values, nan=1.0)  # Inf - Inf is NaN, as is NaN - NaN
    counts.of["nonfinite"] = (broken.sum(dtype=torch.float32), total)
    on = torch.nan_to_num(values.abs(), nan=1.0).sign_()
    if unit_dim is not None:
        by_unit = _rows(on, unit_dim).sum(dim=0, dtype=torch.float32)
        counts.active = by_unit > 0
        nonzero = by_unit.sum()
    else:
        nonzero = on.sum(dtype=torch.float32)
    counts.of["nonzero"] = (nonzero, total)
    if activation is not None and activation.saturates:
        distance = values - activation.center if activation.center else values
        beyond = distance.abs().sub_(activation.limit * _HAIR).nan_to_num_(nan=-1.0).sign_()
        counts.of["saturated"] = ((beyond.sum(dtype=torch.float32) + total) / 2, total)


def by_gradients(
    grad_out: Tensor, grad_in: Tensor, activation: Activation, unit_dim: int
) -> Counts:
    """Count the same from the gradients that leave and enter an elementwise function.

    Args:
        grad_out: Gradient at its output.
        grad_in: Gradient at its input.
        activation: Which function it is.
        unit_dim: Dimension of its units, counted from the end.
    """
    counts = Counts()
    if grad_out.shape != grad_in.shape or grad_out.is_complex() or grad_out.is_sparse:
        return counts
    cut = FLAT * activation.peak
    size = grad_out.abs().to(torch.promote_types(grad_out.dtype, torch.float32))
    known = (size >= torch.finfo(grad_out.dtype).tiny / cut) & (size < math.inf)
    flat = known & (grad_in.abs() < cut * size)
    total = known.sum(dtype=torch.float32)
    share = (flat.sum(dtype=torch.float32), total)
    if activation is RELU:
        counts.of["nonzero"] = (total - share[0], total)
    elif activation.saturates and not activation.dies:
        counts.of["saturated"] = share
    if activation.dies and size.dim() > 1:
        steep = _rows(known & ~flat, unit_dim).any(dim=0)
        counts.active = steep | ~_rows(known, unit_dim).any(dim=0)
    return counts


def _square(values: Tensor) -> tuple[Tensor | float, float]:
    """Return the squared norm, and of how many elements."""
    wide = torch.promote_types(values.dtype, torch.float32)
    norm: Tensor | float = torch.linalg.vector_norm(values, dtype=wide)
    norm = float(norm) if is_at_hand(values) else norm
    return norm * norm, float(values.numel())


def _rows(values: Tensor, unit_dim: int) -> Tensor:
    return values.movedim(unit_dim, -1).reshape(-1, values.shape[unit_dim])


def unit_dim(module: nn.Module, ndim: int, inherited: int | None) -> int | None:
    """Return the dimension of a module's units, counted from the end; None: unknown.

    Args:
        module: The module.
        ndim: Dimensions of its output.
        inherited: The same of its input, if that has as many dimensions.
    """
    if isinstance(module, nn.modules.conv._ConvNd):
        return -len(module.kernel_size) - 1
    if isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm)):
        return 1 - ndim if ndim > 1 else -1
    if isinstance(module, (nn.Linear, nn.LayerNorm, nn.Embedding, nn.RNNBase, nn.RNNCellBase)):
        return -1
    return inherited


def guess_unit_dim(ndim: int, known: int | None) -> int:
    """Return `known`, else the convention: the second of four or more dimensions, else the last."""
    if known is not None and -ndim <= known:
        return known
    return 1 - ndim if ndim >= 4 else -1


def pack(masks: Sequence[Tensor]) -> Tensor:
    """Pack flags into numbers of 16 bits each, which every float dtype of 32 bits holds exactly.

    Args:
        masks: Flags of one device, shape (units,) each.

    Returns:
        One number for every 16 flags, each mask filled up to a whole number of them.
    """
    padded = [functional.pad(mask, (0, -mask.numel() % 16)) for mask in masks]
    bits = torch.cat(padded).view(-1, 16).to(torch.float32)
    return (bits * torch.pow(2.0, torch.arange(16, device=bits.device))).sum(dim=1)
