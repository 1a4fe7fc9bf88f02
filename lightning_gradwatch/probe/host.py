"""The one door from the device to the host.

Every number that leaves the device passes here, many at a time, so that a step costs one transfer
(and on CUDA one synchronisation) whatever the number of parameters. `Host.reads` counts them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lightning_gradwatch.sample import Floats


class Host:
    """Brings vectors of numbers to the host together.

    Attributes:
        reads: Transfers made so far; one for each device that held any of the numbers.
    """

    def __init__(self) -> None:
        self.reads = 0

    def fetch(self, vectors: Sequence[torch.Tensor]) -> list[Floats]:
        """Return each vector (any shape, any device, any real dtype) as a flat float64 array."""
        out: list[Floats] = [np.zeros(0)] * len(vectors)
        by_device: dict[torch.device, list[int]] = {}
        for i, vector in enumerate(vectors):
            if vector.numel():
                by_device.setdefault(vector.device, []).append(i)
        for places in by_device.values():
            flat = torch.cat([widen(vectors[i]).reshape(-1) for i in places])
            values = flat.cpu().numpy().astype(np.float64, copy=False)
            self.reads += 1
            start = 0
            for i in places:  # `np.split` costs several times as much as the transfer on a CPU
                end = start + vectors[i].numel()
                out[i] = values[start:end]
                start = end
        return out


def widen(values: torch.Tensor) -> torch.Tensor:
    """Return `values` as float64, or as float32 on devices that have no float64."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)
