"""Norms read by the compiled reader, of those gradients that it can read.

The others (on a device, sparse, complex, with gaps, of a subclass) are left to torch: `norms.py`.
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
SHARED = 1 << 20


def read_in_place(grads: Sequence[Tensor], out: Floats, p: float) -> list[int]:
    """Write the p-norm of each gradient into `out`, shape (N,), where that can be done here.

    Exact to 1e-6 for every magnitude: no band of magnitudes has to be known.

    Returns:
        The places of the gradients that were not read.
    """
    order = _ORDERS.get(p)
    if native.compiled is None or order is None or not grads or not grads[0].is_cpu:
        return list(range(len(grads)))
    limit = sys.maxsize if torch.get_num_threads() == 1 else SHARED
    left: list[int] = native.compiled.norms(tuple(grads), out, order, limit)
    return left
