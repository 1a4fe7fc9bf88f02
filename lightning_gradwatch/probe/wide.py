"""Norms of many gradients, exact without a look at them: for numbers that nobody waits for.

`norms.py` reads a gradient again when its norm turns out to lie where float32 squares do not reach.
That takes a look from the host. Here every square is taken in float64, where those of all smaller
types have room; a float64 is divided by its largest element first. No gradient is copied apart
from those, one at a time: the kernels widen what they read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_gradwatch.probe.by_torch import norm_of_one, values_of
from lightning_gradwatch.probe.norms import wide_norm

#: Places of the gradients, and their norms on the device, float64.
Measured = list[tuple[list[int], Tensor]]


def wide_norms(grads: Sequence[Tensor], p: float) -> Measured:
    """Return the p-norm of each gradient, left on its device.

    Args:
        grads: Gradients: dense or sparse, real or complex, any float dtype, any size, any device
            with float64.
        p: p > 0, or `inf`.

    Returns:
        Vectors of norms, each with the places of its entries in `grads`. Gradients without elements
        are in none of them: their norm is 0.

    Example:
        >>> [(places, norms)] = wide_norms([torch.full((4,), 1e-30), torch.full((1,), 1e30)], 2.0)
        >>> places, [f"{norm:.4g}" for norm in norms.tolist()]
        ([0, 1], ['2e-30', '1e+30'])
    """
    together: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    values = [values_of(grad, p) for grad in grads]
    out: Measured = []
    for i, value in enumerate(values):
        if not value.numel():
            continue
        if p == 2.0 and value.dtype == torch.float64:
            out.append(([i], wide_norm(value).reshape(1)))
        elif p in (1.0, 2.0):
            together.setdefault((value.device, value.dtype), []).append(i)
        else:
            out.append(([i], norm_of_one(value, p)))
    for places in together.values():
        out.append((places, torch.stack(_alike([values[i] for i in places], p))))
    return out


def _alike(group: list[Tensor], p: float) -> list[Tensor]:
    try:
        return list(torch._foreach_norm(group, p, dtype=torch.float64))
    except TypeError:  # before torch 2.5 or so
        return [torch.linalg.vector_norm(value, p, dtype=torch.float64) for value in group]


def wide_total(vectors: Sequence[Tensor], p: float) -> Tensor:
    """Return the norm over all that `vectors` are norms of, on the device of the first, shape ().

    Without any: 0, on the CPU.
    """
    if not vectors:
        return torch.zeros((), dtype=torch.float64)
    every = torch.cat([v.reshape(-1).to(vectors[0].device, torch.float64) for v in vectors])
    top = every.amax()  # NaN, if there is one
    if math.isinf(p):
        return top
    scale = torch.where((top > 0) & torch.isfinite(top), top, torch.ones_like(top))
    total: Tensor = torch.linalg.vector_norm(every / scale, p) * scale
    return total
