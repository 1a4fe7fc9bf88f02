"""Vectors of norms with torch's own operations, left on the device: few calls for many gradients.

Sums in float32 lose digits with size: 6e-5 relative for 65,536 equal elements, 4e-3 for 50 million
of any kind. So longer gradients are read in rows, whose norms are combined in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_gradwatch.probe.host import widen
from lightning_gradwatch.sample import Floats

#: Gradients larger than this are read row by row. Elsewhere than on a CPU, kernels sum in trees.
LARGE = 4_096
LARGE_ON_DEVICE = 65_536
ROW = 2_048

_KIND = attrgetter("dtype", "layout", "device")

#: Exponent of the power of two that brings a band into the middle of the range, by dtype.
SHIFT = {torch.float32: 100, torch.bfloat16: 100, torch.float64: 500}


class Part(NamedTuple):
    """Norms that were read together.

    Attributes:
        places: The gradients that they belong to.
        norms: Norms on the device, one or several for each place, flat.
        lengths: How many for each place; None: one.
    """

    places: Sequence[int]
    norms: Tensor
    lengths: Sequence[int] | None = None

    def combined(self, norms: Floats) -> Floats:
        """Return one 2-norm for each place, given `norms` on the host."""
        if self.lengths is None:
            return norms
        starts = [0, *accumulate(self.lengths[:-1])]
        with np.errstate(over="ignore", invalid="ignore"):
            whole: Floats = np.sqrt(np.add.reduceat(norms * norms, starts))
        return whole


def measure(values: Sequence[Tensor], bands: Sequence[int], p: float) -> list[Part]:
    """Return norms on the device, each with the places that its entries belong to.

    Args:
        values: What `values_of` returned for each gradient.
        bands: Each one is multiplied by 2 to the power of `SHIFT` times this before it is read.
        p: p > 0, or `inf`.
    """
    groups: dict[tuple[torch.device, torch.dtype, int, bool], list[int]] = {}
    parts: list[Part] = []
    for i, (value, band) in enumerate(zip(values, bands, strict=True)):
        if not value.numel():
            continue
        large = value.numel() > (LARGE if value.is_cpu else LARGE_ON_DEVICE)
        if p not in (1.0, 2.0) or (large and (band or not value.is_cpu)):
            # By itself, so that no more than one gradient is copied at a time.
            shift = SHIFT.get(value.dtype, 0) * band
            one = norm_of_one(value * 2.0**shift if shift else value, p)
            parts.append(Part([i], one))
        else:
            rows = large and _takes_rows(value, p)
            groups.setdefault((value.device, value.dtype, band, rows), []).append(i)
    for (_, dtype, band, rows), places in groups.items():
        group = [values[i] for i in places]
        if band:
            group = list(torch._foreach_mul(group, 2.0 ** (SHIFT.get(dtype, 0) * band)))
        if rows:
            tables = [_norms_of_rows(value) for value in group]
            lengths = [norms.numel() for norms in tables]
            parts.append(Part(places, torch.cat(tables), lengths))
        else:
            parts.append(Part(places, torch.stack(_norms_of_small(group, p))))
    return parts


def are_small_and_alike(grads: Sequence[Tensor], p: float) -> bool:
    """Whether one call of a foreach kernel reads them all as exactly as can be."""
    if p != 2.0 or len(set(map(_KIND, grads))) != 1:
        return False
    kind, layout, _ = _KIND(grads[0])
    if layout is not torch.strided or kind not in (torch.float32, torch.float64):
        return False
    return kind is torch.float64 or max(map(Tensor.numel, grads)) <= LARGE


def _takes_rows(values: Tensor, p: float) -> bool:
    """Whether squares of many are summed in float32."""
    return p == 2.0 and values.dtype != torch.float64


def _sum_dtype(values: Tensor, p: float) -> torch.dtype:
    if values.dtype == torch.float64 or (p == 1.0 and values.device.type != "mps"):
        return torch.float64
    return torch.float32


def _norms_of_small(group: list[Tensor], p: float) -> list[Tensor]:
    dtype = _sum_dtype(group[0], p)
    if group[0].dtype == dtype:
        return list(torch._foreach_norm(group, p))
    # `_foreach_norm(dtype=...)` is missing in older releases; the plain call is as fast on CPU.
    return [torch.linalg.vector_norm(g, p, dtype=dtype) for g in group]


def _norms_of_rows(values: Tensor) -> Tensor:
    """2-norms of rows of one gradient, and of what is left over, shape (n,), in float32."""
    rows, rest = divmod(values.numel(), ROW)
    flat = values if values.is_contiguous() else _flat(values)
    table = (flat.reshape(-1)[: rows * ROW] if rest else flat).view(rows, ROW)
    norms: Tensor = torch.linalg.vector_norm(table, 2.0, 1, dtype=_wider(values))
    if not rest:
        return norms
    last = torch.linalg.vector_norm(flat.reshape(-1)[rows * ROW :], dtype=torch.float32)
    return torch.cat([norms, last.reshape(1)])


def _wider(values: Tensor) -> torch.dtype | None:
    """Type to sum halves in; None for float32, which is quicker than to name its own."""
    return None if values.dtype == torch.float32 else torch.float32


def norm_of_one(values: Tensor, p: float) -> Tensor:
    """Norm of one gradient, as a one-element tensor: by rows for p of 2, else scaled."""
    norm: Tensor
    if values.numel() > ROW and _takes_rows(values, p):
        norm = torch.linalg.vector_norm(widen(_norms_of_rows(values)))
        return norm.reshape(1)
    if p in (1.0, 2.0):
        norm = torch.linalg.vector_norm(values, p, dtype=_sum_dtype(values, p))
        return norm.reshape(1)
    low, high = torch.aminmax(values)
    top = widen(torch.maximum(low.abs(), high.abs()))
    if p == float("inf"):
        return top.reshape(1)
    scale = torch.where((top > 0) & torch.isfinite(top), top, torch.ones_like(top))
    norm = torch.linalg.vector_norm(widen(values) / scale, p) * scale
    return norm.reshape(1)


def _flat(values: Tensor) -> Tensor:
    """View dense memory as one dimension, whatever its order; copy only what is not dense."""
    if values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last):
        values = values.permute(0, 2, 3, 1)
    return values.reshape(-1)


def values_of(grad: Tensor, p: float) -> Tensor:
    """Return a real strided tensor with the same norm as `grad`."""
    if grad.layout is torch.strided and not grad.is_complex():
        return grad
    if grad.layout == torch.sparse_coo:
        grad = grad.coalesce().values()
    elif grad.layout != torch.strided:
        grad = grad.values() if grad.layout == torch.sparse_csr else grad.to_dense()
    if grad.is_complex():
        # Real and imaginary parts as neighbours have the same 2-norm, and no other.
        return torch.view_as_real(grad.resolve_conj()) if p == 2.0 else grad.abs()
    return grad
