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

import numpy as np
import torch
from torch import Tensor

from lightning_gradwatch.layers import combine_norms
from lightning_gradwatch.probe import host
from lightning_gradwatch.probe.by_torch import (
    SHIFT,
    Part,
    are_small_and_alike,
    measure,
    norm_of_one,
    values_of,
)
from lightning_gradwatch.probe.host import Host, widen
from lightning_gradwatch.probe.in_place import norm_in_place, read_in_place
from lightning_gradwatch.probe.small import read_small
from lightning_gradwatch.sample import Floats

#: In the middle band an element below this may lose its square to underflow (per sqrt(element)).
_FLOOR = {torch.float32: 1e-15, torch.bfloat16: 1e-15, torch.float64: 1e-145}


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
        left = read_small(grads, read_in_place(grads, norms, self._p), norms, self._p)
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
        if not self._bands and are_small_and_alike(grads, self._p):
            # Hundreds of them are bound by what each one costs in Python: no look at any.
            bands, values = [0] * len(grads), grads
            parts = [
                Part(range(len(grads)), torch.stack(torch._foreach_norm(list(grads), self._p)))
            ]
        else:
            values = [values_of(g, self._p) for g in grads]
            bands = [self._bands.get(key, 0) for key in keys]
            parts = measure(values, bands, self._p)
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
        values = [values_of(g, self._p) for g in grads]
        bands = [max(self._bands.get(key, 0), 0) for key in keys]
        norms = []
        for part in measure(values, bands, self._p):
            first = part.places[0]
            shift = SHIFT.get(values[first].dtype, 0) * bands[first]
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
                shift = SHIFT.get(values[i].dtype, 0) * band
                if shift:
                    norms[i] = np.ldexp(norms[i], -shift)
                bands[i] = self._band(norms[i], band, values[i])
                if bands[i] != band:
                    moved.append(i)
            if not moved:
                return
            parts = measure([values[i] for i in moved], [bands[i] for i in moved], self._p)
            fetched = self._host.fetch([part.norms for part in parts])
            for part, read in zip(parts, fetched, strict=True):
                norms[[moved[j] for j in part.places]] = part.combined(read)
            again = moved
        for i in again:
            norms[i] = np.ldexp(norms[i], -SHIFT.get(values[i].dtype, 0) * bands[i])

    def _band(self, norm: float, band: int, values: Tensor) -> int:
        """Say in which band this norm can be trusted: -1 huge, 0 middle, 1 tiny."""
        shift = SHIFT.get(values.dtype, 0)
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


def _plainly_in_band(norms: Floats) -> bool:
    """Whether every norm lies so far inside the middle band that none needs a second look."""
    return bool(np.all((norms > 1e-10) & (norms < 1e30)))


def norm_of(values: Tensor) -> Tensor | float:
    """Return the 2-norm of any magnitude: a number where it is at hand, else left on the device.

    Example:
        >>> f"{norm_of(torch.full((4,), 1e-30)):.4g}"
        '2e-30'
    """
    if host.is_at_hand(values):
        norm = norm_in_place(values)
        if norm is not None:
            return norm
    with torch.no_grad():
        return _norm_with_torch(values)


def _norm_with_torch(values: Tensor) -> Tensor | float:
    narrow = values.dtype in (torch.float32, torch.bfloat16) and values.layout == torch.strided
    if not (narrow and host.is_at_hand(values)):
        return wide_norm(values)
    if not values.numel():
        return 0.0
    norm = float(norm_of_one(values.detach(), 2.0))
    if not _FLOOR[values.dtype] * values.numel() ** 0.5 < norm < np.inf:
        return float(wide_norm(values))
    return norm


def wide_norm(values: Tensor) -> Tensor:
    """Return the 2-norm as one number on the device, without a look at it: any magnitude.

    Squares are taken in float64, where those of every float32 have room. A float64 (and anything
    on a device without float64) is divided by its largest element first.

    Example:
        >>> wide_norm(torch.full((4,), 1e-30))
        tensor(2.0000e-30, dtype=torch.float64)
    """
    values = values_of(values, 2.0)
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
