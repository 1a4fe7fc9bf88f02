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
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.autograd.graph import Node

#: A derivative below this share of its largest value counts as flat.
FLAT = 0.05


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
