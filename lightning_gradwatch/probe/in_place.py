"""What the compiled reader does, with those gradients that it can reach: read norms, and scale.

The others (on a device, sparse, complex, with gaps, of a subclass) are left to torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_gradwatch import native
from lightning_gradwatch.sample import Floats

#: What the reader calls each p.
_ORDERS = {1.0: 1, 2.0: 2, float("inf"): 0}

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
