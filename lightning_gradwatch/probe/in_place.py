"""What the compiled reader does, with those tensors that it can reach: read norms, count, scale.

The others (on a device, sparse, complex, with gaps, of a subclass) are left to torch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_gradwatch import native
from lightning_gradwatch.probe.activations import Activation
from lightning_gradwatch.sample import Floats

#: What the reader calls each p.
_ORDERS = {1.0: 1, 2.0: 2, float("inf"): 0}

#: Square sums between which those of float32 are exact enough.
_SMALL, _LARGE = 1e-27, 3e38

#: Larger gradients are left to torch where it has several threads for them.
SHARED = 1 << 18


def read_in_place(grads: Sequence[Tensor], out: Floats, p: float) -> list[int]:
    """Write the p-norm of each gradient into `out`, shape (N,), where that can be done here.

    Exact to 1e-6 for every magnitude: no band of magnitudes has to be known.

    Returns:
        The places of the gradients that were not read.
    """
    order = _ORDERS.get(p)
    if native.compiled is None or order is None or not grads or not grads[0].is_cpu:
        return list(range(len(grads)))
    left: list[int] = native.compiled.norms(tuple(grads), out, order, _largest())
    return left


def norm_in_place(values: Tensor) -> float | None:
    """Return the 2-norm of a tensor, as `read_in_place` does; None where it cannot be read here."""
    if native.compiled is None:
        return None
    norm: float | None = native.compiled.norm(values, _largest())
    return norm


def count_in_place(
    values: Tensor, activation: Activation | None, unit_dim: int, share: float
) -> tuple[float, int, int, bytes | None] | None:
    """Count the elements of an output in one look, where that can be done here.

    Args:
        values: The output.
        activation: What made it; None: nothing that has a limit.
        unit_dim: Dimension of its units, counted from the end; 0: not asked for.
        share: Part of the limit that counts as reached.

    Returns:
        The squared norm, how many elements are not zero, how many lie beyond the limit, and a byte
        for each unit: whether it was ever on. None where that is left to torch: also where its
        squares in float32 would not be true, so that both say the same.
    """
    if native.compiled is None:
        return None
    center, edge = (0.0, math.inf) if activation is None else (activation.center, activation.limit)
    counted: tuple[float, int, int, bytes | None] | None
    counted = native.compiled.count(values, center, edge * share, unit_dim, _largest())
    if counted is None or not (_SMALL < counted[0] < _LARGE or counted[0] == 0.0):
        return None  # NaN also
    return counted


def scale_in_place(grads: Sequence[Tensor], factor: float) -> list[int]:
    """Multiply gradients by a factor, to the bit as `mul_` does, where that can be done here.

    Returns:
        The places of the gradients that were not scaled, half precision among them.
    """
    if native.compiled is None or not grads or not grads[0].is_cpu:
        return list(range(len(grads)))
    left: list[int] = native.compiled.scale(tuple(grads), factor, _largest())
    if len(left) < len(grads):
        those = set(left)
        written = [g for i, g in enumerate(grads) if i not in those] if left else grads
        torch.autograd.graph.increment_version(written)
    return left


def _largest() -> int:
    return sys.maxsize if torch.get_num_threads() == 1 else SHARED
