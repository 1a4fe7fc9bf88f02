"""Doors that stand for a device which is late, never answers, or is dead."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from torch import Tensor


class LateDoor:
    """Every vector arrives when so many more were sent, or when it was asked for often enough.

    Args:
        late: How many; a tuple: drawn anew for each vector.
    """

    def __init__(self, late: int | tuple[int, int] = 0) -> None:
        self.late = late
        self.sent = self.waited = 0
        self._random = random.Random(0)

    def send(self, flat: Tensor) -> Any:
        self.sent += 1
        low, high = (self.late, self.late) if isinstance(self.late, int) else self.late
        return _Late(self, flat, self.sent + self._random.randint(low, high))


class _Late:
    def __init__(self, door: LateDoor, flat: Tensor, due: int) -> None:
        self.door, self.due = door, due
        # Copied now, as the device does it: what happens to the tensor later is not in it.
        self.values = np.array(flat.detach().tolist(), np.float64)
        self.asked = 0

    def arrived(self) -> bool:
        self.asked += 1
        return self.door.sent >= self.due or self.asked > 20

    def numbers(self) -> Any:
        self.door.waited += not self.arrived()
        return self.values


class DeadDoor(LateDoor):
    """Works for so many vectors; then every question raises, as CUDA does after an error."""

    def __init__(self, works: int) -> None:
        super().__init__(0)
        self.works = works

    def send(self, flat: Tensor) -> Any:
        parcel = super().send(flat)
        return parcel if self.sent <= self.works else _Dead()


class _Dead:
    def arrived(self) -> bool:
        raise RuntimeError("CUDA error: device-side assert triggered")

    numbers = arrived


class SilentDoor(LateDoor):
    """Never answers, and must not be waited for."""

    def send(self, flat: Tensor) -> Any:
        self.sent += 1
        return _Silent()


class _Silent:
    def arrived(self) -> bool:
        return False

    def numbers(self) -> Any:
        raise AssertionError("waited for a device that never answers")
