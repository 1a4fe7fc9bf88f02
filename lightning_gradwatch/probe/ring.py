"""Numbers on their way to the host, for which nobody waits.

An accelerator works through a queue that the host fills. Asking it for a number empties that queue:
the host waits until the device has caught up, and the device then waits for the host. So a step's
numbers are copied into pinned memory by the device itself, in its own time, and an event behind
the copy tells when they are there. They are looked at some steps later, in the order of the steps.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_gradwatch.probe.host import Parts
from lightning_gradwatch.sample import Floats

#: Vectors under way at most. A device that is so many steps behind the host has to be waited for.
SLOTS = 64

#: Seconds that an interrupted run is given to deliver what it has measured.
PATIENCE = 1.0


class Parcel(Protocol):
    """A vector on its way."""

    def arrived(self) -> bool:
        """Whether it is there; never waits."""
        ...

    def numbers(self) -> Floats:
        """Return it as a float64 array, after waiting for it if need be; once."""
        ...


class Door(Protocol):
    """A way from the device to the host."""

    def send(self, flat: Tensor) -> Parcel:
        """Send a vector of one dimension; never waits."""
        ...


class PinnedDoor:
    """Copies into pinned memory, by the stream that computes what is copied.

    Slots are used again once their numbers were read, so that a run in step with its device needs
    two or three.
    """

    def __init__(self) -> None:
        self._free: dict[torch.device, list[_Slot]] = {}

    def send(self, flat: Tensor) -> Parcel:
        """Start the copy and mark its end; what lies on the host already is there at once."""
        return _Here(flat) if flat.device.type == "cpu" else self._into_slot(flat)

    def _into_slot(self, flat: Tensor) -> Parcel:
        free = self._free.setdefault(flat.device, [])
        fits = [slot for slot in free if slot.room.numel() >= flat.numel()]
        if not fits:
            free.clear()  # those in use come back; smaller ones are not worth their memory
            # Flow and updates make some vectors longer: room for those of the same order.
            fits = [_Slot(flat.device, max(256, 2 * flat.numel()))]
            free.append(fits[0])
        slot = fits[-1]
        free.remove(slot)
        slot.room[: flat.numel()].copy_(flat, non_blocking=True)
        slot.event.record(_runtime(flat.device).current_stream(flat.device))
        return _InSlot(slot, flat.numel(), free)


class _Slot:
    def __init__(self, device: torch.device, size: int) -> None:
        self.room = torch.empty(size, dtype=torch.float64, device="cpu", pin_memory=True)
        self.event: Any = _runtime(device).Event()


class _InSlot:
    def __init__(self, slot: _Slot, size: int, free: list[_Slot]) -> None:
        self._slot, self._size, self._free = slot, size, free

    def arrived(self) -> bool:
        return bool(self._slot.event.query())

    def numbers(self) -> Floats:
        self._slot.event.synchronize()
        values: Floats = self._slot.room[: self._size].numpy().copy()
        self._free.append(self._slot)
        return values


class _Here:
    def __init__(self, flat: Tensor) -> None:
        self._values: Floats = flat.numpy().astype(np.float64, copy=False)  # `Parts` has copied it

    def arrived(self) -> bool:
        return True

    def numbers(self) -> Floats:
        return self._values


def _runtime(device: torch.device) -> Any:
    """Return the module of a kind of device: `torch.cuda` (ROCm too), `torch.xpu`."""
    return getattr(torch, device.type)


class _Sent:
    def __init__(
        self, parts: Parts, parcels: Sequence[Parcel], then: Callable[[list[Floats]], None]
    ) -> None:
        self._parts, self._parcels, self._then = parts, parcels, then

    def arrived(self) -> bool:
        return all(parcel.arrived() for parcel in self._parcels)

    def hand_on(self) -> None:
        self._then(self._parts.split([parcel.numbers() for parcel in self._parcels]))


class _Turn:
    """What waits for its turn only."""

    def __init__(self, then: Callable[[list[Floats]], None]) -> None:
        self._then = then

    def arrived(self) -> bool:
        return True

    def hand_on(self) -> None:
        self._then([])


class Ring:
    """Sends numbers to the host and hands them on in the order in which they were sent.

    Args:
        door: How they get there.
        slots: How many vectors may be under way.

    Attributes:
        waits: How often somebody had to wait for the device.

    Example:
        >>> class Slow:
        ...     def send(self, flat):
        ...         return type("P", (), {"arrived": lambda s: False, "numbers": lambda s: [7.0]})()
        >>> ring = Ring(Slow())
        >>> ring.send([torch.ones(1)], lambda numbers: print(numbers))
        >>> ring.poll(), len(ring)
        (None, 1)
        >>> ring.drain(), ring.waits
        [[7.0]]
        (None, 1)
    """

    def __init__(self, door: Door, slots: int = SLOTS) -> None:
        self._door = door
        self._slots = slots
        self._under_way: deque[_Sent | _Turn] = deque()
        self._busy = False
        self.waits = 0

    def __len__(self) -> int:
        """Vectors under way."""
        return len(self._under_way)

    def send(self, tensors: Sequence[Tensor], then: Callable[[list[Floats]], None]) -> None:
        """Send tensors, as they are now.

        Args:
            tensors: Any shapes, devices and real dtypes; none: `then` is called in its turn.
            then: Given each tensor as a flat float64 array, after everything sent before.
        """
        sent: _Sent | _Turn = _Turn(then)
        if tensors:
            parts = Parts(tensors)
            sent = _Sent(parts, [self._door.send(flat) for flat in parts.flat], then)
        if len(self._under_way) >= self._slots:
            self._next()
        self._under_way.append(sent)

    def poll(self) -> None:
        """Hand on what has arrived; never waits."""
        # Whoever is told may ask for more: his own numbers come first.
        while not self._busy and self._under_way and self._under_way[0].arrived():
            self._next()

    def drain(self) -> None:
        """Hand on everything, after waiting for it."""
        while not self._busy and self._under_way:
            self._next()

    def salvage(self, patience: float = PATIENCE) -> None:
        """Hand on what arrives within `patience` seconds, and forget the rest: it may never."""
        end = time.monotonic() + patience
        while not self._busy and self._under_way:
            if self._under_way[0].arrived():
                self._next()
            elif time.monotonic() > end:
                self._under_way.clear()
            else:
                time.sleep(0.001)

    def _next(self) -> None:
        if self._busy:
            return
        sent = self._under_way.popleft()
        self.waits += not sent.arrived()
        self._busy = True
        try:
            sent.hand_on()
        finally:
            self._busy = False


def door_for(devices: Iterable[torch.device]) -> Door | None:
    """Return how numbers leave these devices without waiting; None where they cannot.

    Needs events, copies into pinned memory and float64 on every one of them: CUDA, ROCm, and XPU
    where it has float64.

    Example:
        >>> door_for([torch.device("cpu")]) is None
        True
    """
    known = set(devices)
    return PinnedDoor() if known and all(map(_can_send, known)) else None


def _can_send(device: torch.device) -> bool:
    if device.type == "cuda":
        return True
    if device.type != "xpu":
        return False
    properties = torch.xpu.get_device_properties(device)
    return bool(getattr(properties, "has_fp64", False))
