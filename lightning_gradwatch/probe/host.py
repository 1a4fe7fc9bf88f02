"""The one door from the device to the host.

Every number that leaves the device passes here, many at a time, so that a step costs one transfer
(and on CUDA one synchronisation) whatever the number of parameters. `Host.reads` counts them.
Numbers that nobody waits for take the same vectors through `ring.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lightning_gradwatch.sample import Floats


class Host:
    """Brings vectors of numbers to the host together.

    Attributes:
        reads: Transfers waited for so far; one for each device that held any of the numbers.
    """

    def __init__(self) -> None:
        self.reads = 0

    def fetch(self, vectors: Sequence[torch.Tensor]) -> list[Floats]:
        """Return each vector (any shape, any device, any real dtype) as a flat float64 array."""
        if all(vector.numel() == 1 and is_at_hand(vector) for vector in vectors):
            # A loss, as a rule: to pack it costs more than to look at it.
            self.reads += bool(vectors)
            return [np.array([float(vector)]) for vector in vectors]
        parts = Parts(vectors)
        values = []
        for flat in parts.flat:
            values.append(flat.cpu().numpy().astype(np.float64, copy=False))
            self.reads += 1
        return parts.split(values)


class Parts:
    """Vectors packed into one for each device, and how to take them apart again.

    Args:
        vectors: Tensors of any shape, device and real dtype.

    Attributes:
        flat: One new vector for each device that holds any number, float64 where it has that.

    Example:
        >>> parts = Parts([torch.ones(2), torch.zeros(0), torch.tensor(3.0)])
        >>> [part.tolist() for part in parts.split([f.numpy() for f in parts.flat])]
        [[1.0, 1.0], [], [3.0]]
    """

    def __init__(self, vectors: Sequence[torch.Tensor]) -> None:
        self._sizes = [vector.numel() for vector in vectors]
        by_device: dict[torch.device, list[int]] = {}
        for i, vector in enumerate(vectors):
            if vector.numel():
                by_device.setdefault(vector.device, []).append(i)
        self._places = list(by_device.values())
        self.flat = [
            torch.cat([widen(vectors[i]).reshape(-1) for i in places]) for places in self._places
        ]

    def split(self, values: Sequence[Floats]) -> list[Floats]:
        """Return the vectors that were packed, given `flat` on the host."""
        out: list[Floats] = [np.zeros(0)] * len(self._sizes)
        for places, flat in zip(self._places, values, strict=True):
            start = 0
            for i in places:  # `np.split` costs several times as much as the transfer on a CPU
                end = start + self._sizes[i]
                out[i] = flat[start:end]
                start = end
        return out


def is_at_hand(values: torch.Tensor) -> bool:
    """Whether numbers may be looked at without waiting for a device."""
    return values.is_cpu and type(values) is torch.Tensor


def widen(values: torch.Tensor) -> torch.Tensor:
    """Return `values` as float64, or as float32 on devices that have no float64."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def laid_out(numbers: Sequence[float], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return numbers of the host as a vector on a device, without waiting for the copy.

    From memory that is not pinned, CUDA would have the host wait.
    """
    vector = torch.tensor(numbers, dtype=dtype)
    if device.type in ("cuda", "xpu"):
        vector = vector.pin_memory()
    return vector.to(device, non_blocking=True)
