"""Norms of many gradients at once, exact to 1e-5 relative from 1e-38 to 3e38.

On the CPU the compiled reader does it where it can (`in_place.py`). With torch alone three things
make the plain float32 norm wrong, and each has its answer here:

* Squares leave the range of float32 below about 1e-19 and above 1e19. Such gradients are read
  again after multiplication by a power of two (exact), and their band is remembered, so that a run
  whose gradients vanish still costs one transfer a step.
* Summation in float32 loses digits with size: 6e-5 relative for 65,536 equal elements, 4e-3 for 50
  million of any kind. Longer gradients are read in rows of 2,048, whose norms are combined in
  float64; this costs nothing. Absolute values (p = 1) are summed in float64 throughout.
* A norm of Inf does not mean an infinite gradient. A gradient is called non-finite only when its
  scaled-down norm is Inf too, or NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_gradwatch.layers import combine_norms
from lightning_gradwatch.probe.host import Host, widen
from lightning_gradwatch.probe.in_place import read_in_place
from lightning_gradwatch.sample import Floats

#: Gradients larger than this are read row by row. Elsewhere than on a CPU, kernels sum in trees.
LARGE = 4_096
LARGE_ON_DEVICE = 65_536
ROW = 2_048

_KIND = attrgetter("dtype", "layout", "device")

#: Exponent of the power of two that brings a band into the middle of the range, by dtype.
_SHIFT = {torch.float32: 100, torch.bfloat16: 100, torch.float64: 500}

#: In the middle band an element below this may lose its square to underflow (per sqrt(element)).
_FLOOR = {torch.float32: 1e-15, torch.bfloat16: 1e-15, torch.float64: 1e-145}


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


class NormReader:
    """Reads p-norms of gradients, remembering the band of magnitude that each one lives in.

    Args:
        host: The door through which numbers leave the device.
        norm_type: p > 0, or `inf` for the maximum norm.
    """

    def __init__(self, host: Host, norm_type: float = 2.0) -> None:
        self._host = host
        self._p = float(norm_type)
        self._bands: dict[int, int] = {}

    def read(
        self, grads: Sequence[Tensor], keys: Sequence[int], extra: Sequence[Tensor] = ()
    ) -> tuple[Floats, list[Floats]]:
        """Return the norm of each gradient, and `extra` in the same transfer.

        Args:
            grads: Gradients: dense or sparse, real or complex, any float dtype, any size.
            keys: What to remember each one's band by.
            extra: Further tensors to bring to the host on the way.

        Returns:
            Norms, shape (len(grads),), NaN or Inf where the gradient is not finite; and the
            extras as flat float64 arrays.
        """
        norms = np.zeros(len(grads))
        left = read_in_place(grads, norms, self._p)
        if not left:
            return norms, self._host.fetch(extra)
        if len(left) == len(grads):
            return self._read_with_torch(grads, keys, extra)
        norms[left], fetched = self._read_with_torch(
            [grads[i] for i in left], [keys[i] for i in left], extra
        )
        return norms, fetched

    def _read_with_torch(
        self, grads: Sequence[Tensor], keys: Sequence[int], extra: Sequence[Tensor]
    ) -> tuple[Floats, list[Floats]]:
        if not self._bands and _are_small_and_alike(grads, self._p):
            # Hundreds of them are bound by what each one costs in Python: no look at any.
            bands, values = [0] * len(grads), grads
            parts = [
                Part(range(len(grads)), torch.stack(torch._foreach_norm(list(grads), self._p)))
            ]
        else:
            values = [_values(g, self._p) for g in grads]
            bands = [self._bands.get(key, 0) for key in keys]
            parts = self._measure(values, bands)
        fetched = self._host.fetch([*(part.norms for part in parts), *extra])
        norms = np.zeros(len(grads))
        for part, read in zip(parts, fetched, strict=False):
            norms[part.places] = part.combined(read)
        if self._bands or not _plainly_in_band(norms):
            self._settle(norms, values, bands)
            for key, band in zip(keys, bands, strict=True):
                if band:
                    self._bands[key] = band
                else:
                    self._bands.pop(key, None)
        return norms, fetched[len(parts) :]

    def global_norm(self, grads: Sequence[Tensor], keys: Sequence[int]) -> Tensor:
        """Return the norm over all gradients, left on the device, shape (1,).

        Trusts the bands of the latest `read`: meant for the same gradients after a clip.
        """
        norms = np.zeros(len(grads))
        left = read_in_place(grads, norms, self._p)
        if not left:
            return torch.tensor([combine_norms(norms, self._p)], dtype=torch.float64)
        if len(left) == len(grads):
            return self._global_norm_with_torch(grads, keys)
        here = combine_norms(np.delete(norms, left), self._p)
        rest = self._global_norm_with_torch([grads[i] for i in left], [keys[i] for i in left])
        total: Tensor = torch.linalg.vector_norm(
            torch.cat([widen(rest), torch.full_like(widen(rest), here)]), self._p
        )
        return total.reshape(1)

    def _global_norm_with_torch(self, grads: Sequence[Tensor], keys: Sequence[int]) -> Tensor:
        values = [_values(g, self._p) for g in grads]
        bands = [max(self._bands.get(key, 0), 0) for key in keys]
        norms = []
        for part in self._measure(values, bands):
            first = part.places[0]
            shift = _SHIFT.get(values[first].dtype, 0) * bands[first]
            norms.append((widen(part.norms) * 2.0**-shift).to(grads[0].device))
        if not norms:
            return torch.zeros(1)
        total: Tensor = torch.linalg.vector_norm(torch.cat(norms), self._p)
        return total.reshape(1)

    def _settle(self, norms: Floats, values: Sequence[Tensor], bands: list[int]) -> None:
        """Scale norms back, and read again those that turned out to lie in another band."""
        again = list(range(len(values)))
        for _ in range(3):
            moved = []
            for i in again:
                band = bands[i]
                shift = _SHIFT.get(values[i].dtype, 0) * band
                if shift:
                    norms[i] = np.ldexp(norms[i], -shift)
                bands[i] = self._band(norms[i], band, values[i])
                if bands[i] != band:
                    moved.append(i)
            if not moved:
                return
            parts = self._measure([values[i] for i in moved], [bands[i] for i in moved])
            fetched = self._host.fetch([part.norms for part in parts])
            for part, read in zip(parts, fetched, strict=True):
                norms[[moved[j] for j in part.places]] = part.combined(read)
            again = moved
        for i in again:
            norms[i] = np.ldexp(norms[i], -_SHIFT.get(values[i].dtype, 0) * bands[i])

    def _band(self, norm: float, band: int, values: Tensor) -> int:
        """Say in which band this norm can be trusted: -1 huge, 0 middle, 1 tiny."""
        shift = _SHIFT.get(values.dtype, 0)
        if self._p not in (1.0, 2.0) or not shift or not values.numel() or np.isnan(norm):
            return band  # other norms are scaled by their own maximum; half never leaves the range
        floor = _FLOOR[values.dtype] * values.numel() ** 0.5
        if np.isinf(norm):
            return max(band - 1, -1)
        if band == 0 and norm < floor:
            return 1
        if band == 1 and norm > floor * 2.0**16:
            return 0
        if band == -1 and norm < np.ldexp(floor, shift):
            return 0
        return band

    def _measure(self, values: Sequence[Tensor], bands: Sequence[int]) -> list[Part]:
        """Return norms on the device, each with the places that its entries belong to."""
        groups: dict[tuple[torch.device, torch.dtype, int, bool], list[int]] = {}
        parts: list[Part] = []
        for i, (value, band) in enumerate(zip(values, bands, strict=True)):
            if not value.numel():
                continue
            large = _is_large(value, self._p)
            if self._p not in (1.0, 2.0) or (large and not value.is_cpu):
                shift = _SHIFT.get(value.dtype, 0) * band
                one = _norm_of_one(value * 2.0**shift if shift else value, self._p)
                parts.append(Part([i], one))
            else:
                groups.setdefault((value.device, value.dtype, band, large), []).append(i)
        for (_, dtype, band, large), places in groups.items():
            group = [values[i] for i in places]
            if band:
                group = list(torch._foreach_mul(group, 2.0 ** (_SHIFT.get(dtype, 0) * band)))
            if large:
                rows = [_norms_of_rows(value) for value in group]
                lengths = [norms.numel() for norms in rows]
                parts.append(Part(places, torch.cat(rows), lengths))
            else:
                parts.append(Part(places, torch.stack(_norms_of_small(group, self._p))))
        return parts


def _are_small_and_alike(grads: Sequence[Tensor], p: float) -> bool:
    """Whether one call of a foreach kernel reads them all as exactly as can be."""
    if p != 2.0 or len(set(map(_KIND, grads))) != 1:
        return False
    kind, layout, _ = _KIND(grads[0])
    if layout is not torch.strided or kind not in (torch.float32, torch.float64):
        return False
    return kind is torch.float64 or max(map(Tensor.numel, grads)) <= LARGE


def _is_large(values: Tensor, p: float) -> bool:
    """Whether it takes rows to sum its squares without loss."""
    if p != 2.0 or values.dtype == torch.float64:
        return False
    return values.numel() > (LARGE if values.is_cpu else LARGE_ON_DEVICE)


def _plainly_in_band(norms: Floats) -> bool:
    """Whether every norm lies so far inside the middle band that none needs a second look."""
    return bool(np.all((norms > 1e-10) & (norms < 1e30)))


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


def _norm_of_one(values: Tensor, p: float) -> Tensor:
    """Norm of one gradient, as a one-element tensor: by rows for p of 2, else scaled."""
    norm: Tensor
    if p == 2.0 and _is_large(values, p):
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


def _values(grad: Tensor, p: float) -> Tensor:
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


def wide_norm(values: Tensor) -> Tensor:
    """Return the 2-norm as one number on the device, without a look at it: any magnitude.

    Squares are taken in float64, where those of every float32 have room. A float64 (and anything
    on a device without float64) is divided by its largest element first.

    Example:
        >>> wide_norm(torch.full((4,), 1e-30))
        tensor(2.0000e-30, dtype=torch.float64)
    """
    values = _values(values, 2.0)
    if not values.numel():
        return torch.zeros((), dtype=torch.float64 if values.device.type != "mps" else None)
    if values.dtype != torch.float64 and values.device.type != "mps":
        norm: Tensor = torch.linalg.vector_norm(values, dtype=torch.float64)
        return norm
    wide = widen(values)
    top = wide.abs().amax()
    scale = torch.where((top > 0) & torch.isfinite(top), top, torch.ones_like(top))
    unit: Tensor = torch.linalg.vector_norm(wide / scale)
    return unit * scale
