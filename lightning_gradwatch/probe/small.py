"""Norms of many small gradients on the CPU, without the compiled reader: all in one go.

A call of torch for each costs far more than its numbers do. Laid end to end and summed up by
segments, in float64, a thousand of them take a third of the time, and no magnitude is out of range.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import numpy as np
import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors

from lightning_gradwatch.probe import host
from lightning_gradwatch.sample import Floats

#: Elements up to which laying end to end is cheaper than a call of its own, and gradients from
#: which it is worth while.
SMALL, MANY = 512, 8

_KIND = attrgetter("dtype", "layout", "device")
_TYPES = (torch.float32, torch.float16, torch.bfloat16)


def read_small(grads: Sequence[Tensor], among: list[int], out: Floats, p: float) -> list[int]:
    """Write the p-norm of each small gradient into `out`, shape (N,), where that can be done here.

    Args:
        grads: Gradients.
        among: Places of those to read.
        out: Where to.
        p: p > 0, or `inf`.

    Returns:
        The places among them of the gradients that were not read.

    Example:
        >>> norms = np.zeros(9)
        >>> read_small([torch.full((4,), 1e-30)] * 9, [*range(9)], norms, 2.0)
        []
        >>> f"{norms[-1]:.4g}"
        '2e-30'
    """
    if p not in (1.0, 2.0, float("inf")):
        return among
    places = [i for i in among if 0 < grads[i].numel() <= SMALL]
    small = [grads[i] for i in places]
    if len(small) < MANY or len({*map(_KIND, small)}) != 1 or {*map(type, small)} != {Tensor}:
        return among
    first = small[0]
    if first.dtype not in _TYPES or first.layout != torch.strided or not host.is_at_hand(first):
        return among
    flat = _flatten_dense_tensors(small).detach().to(torch.float64).numpy()
    starts = np.zeros(len(small), np.intp)
    np.cumsum([grad.numel() for grad in small[:-1]], out=starts[1:])
    if p == 2.0:
        out[places] = np.sqrt(np.add.reduceat(np.square(flat, out=flat), starts))
    else:
        joined = np.add if p == 1.0 else np.maximum
        out[places] = joined.reduceat(np.abs(flat, out=flat), starts)
    return [] if len(places) == len(among) else sorted({*among} - {*places})
