"""The ring by itself: order, bounds, and whom it waits for."""

from __future__ import annotations

import math
import time

import pytest
import torch

from lightning_gradwatch.probe.ring import PinnedDoor, Ring, door_for
from tests.ring.doors import DeadDoor, LateDoor, SilentDoor

NAN = float("nan")


def sent(ring: Ring, told: list, *numbers: float) -> None:
    ring.send([torch.tensor(numbers)], lambda values: told.append(values[0].tolist()))


def test_not_finite_numbers_arrive_as_they_are():
    ring, told = Ring(LateDoor(0)), []
    sent(ring, told, NAN, math.inf, -math.inf, 1e-45)
    ring.poll()
    assert math.isnan(told[0][0])
    assert told[0][1:3] == [math.inf, -math.inf]
    assert told[0][3] == pytest.approx(1e-45, rel=0.5)


@pytest.mark.parametrize("late", [0, 1, 7, (0, 9)])
def test_numbers_are_told_in_order_and_nobody_waits(late):
    door = LateDoor(late)
    ring, told = Ring(door), []
    for i in range(30):
        sent(ring, told, float(i))
        ring.poll()
    assert told == [[float(i)] for i in range(len(told))]
    assert ring.waits == door.waited == 0
    ring.drain()
    assert told == [[float(i)] for i in range(30)]


def test_what_has_no_tensor_waits_for_its_turn():
    ring, told = Ring(LateDoor(3)), []
    sent(ring, told, 1.0)
    ring.send([], lambda values: told.append(values))
    ring.poll()
    assert told == []
    ring.drain()
    assert told == [[1.0], []]


def test_later_writes_do_not_change_what_was_sent():
    ring, told, tensor = Ring(LateDoor(5)), [], torch.ones(2)
    ring.send([tensor], lambda values: told.append(values[0].tolist()))
    tensor.zero_()
    ring.drain()
    assert told == [[1.0, 1.0]]


def test_a_full_ring_waits_for_the_oldest_and_counts_it():
    door = LateDoor(1000)
    ring, told = Ring(door, slots=4), []
    for i in range(6):
        sent(ring, told, float(i))
    assert told == [[0.0], [1.0]]
    assert ring.waits == door.waited == 2
    assert len(ring) == 4


def test_who_is_told_may_ask_for_more_without_upsetting_the_order():
    ring, told = Ring(LateDoor(9)), []

    def first(values):
        ring.drain()
        ring.poll()
        told.append("first")

    ring.send([torch.ones(1)], first)
    ring.send([torch.ones(1)], lambda values: told.append("second"))
    ring.drain()
    assert told == ["first", "second"]


def test_an_error_in_who_is_told_loses_no_other_number():
    ring, told = Ring(LateDoor(9)), []
    ring.send([torch.ones(1)], lambda values: 1 / 0)
    sent(ring, told, 5.0)
    with pytest.raises(ZeroDivisionError):
        ring.drain()
    ring.drain()
    assert told == [[5.0]]


def test_a_silent_device_is_left_alone_after_a_while():
    ring = Ring(SilentDoor())
    sent(ring, [], 1.0)
    begin = time.monotonic()
    ring.salvage(patience=0.05)
    assert time.monotonic() - begin < 1.0
    assert len(ring) == 0


def test_what_had_arrived_before_the_device_died_is_told():
    ring, told = Ring(DeadDoor(works=2)), []
    for i in range(3):
        sent(ring, told, float(i))
    with pytest.raises(RuntimeError, match="CUDA error"):
        ring.salvage()
    assert told == [[0.0], [1.0]]


def test_mixed_shapes_types_and_empty_tensors():
    ring, told = Ring(LateDoor(0)), []
    tensors = [
        torch.zeros(0), torch.tensor(3, dtype=torch.int32), torch.ones(2, 2, dtype=torch.bfloat16),
    ]  # fmt: skip
    ring.send(tensors, lambda values: told.extend(v.tolist() for v in values))
    ring.poll()
    assert told == [[], [3.0], [1.0] * 4]


def test_only_devices_with_events_and_float64_have_a_door():
    assert door_for([]) is None
    assert door_for([torch.device("cpu")]) is None
    assert door_for([torch.device("mps")]) is None
    assert door_for([torch.device("cuda", 0), torch.device("cpu")]) is None
    assert isinstance(door_for([torch.device("cuda", 0), torch.device("cuda", 1)]), PinnedDoor)


def test_slots_are_used_again_and_grow(monkeypatch):
    """On the CPU, with a stand-in for CUDA's events and pinned memory."""
    from lightning_gradwatch.probe import ring as module

    made = []

    class Event:
        def record(self, stream):
            self.there = False

        def query(self):
            return self.there

        def synchronize(self):
            self.there = True

    class Slot:
        def __init__(self, device, size):
            self.room, self.event = torch.empty(size, dtype=torch.float64), Event()
            made.append(size)

    class Runtime:
        current_stream = staticmethod(lambda device: None)

    monkeypatch.setattr(module, "_Slot", Slot)
    monkeypatch.setattr(module, "_runtime", lambda device: Runtime)
    door = PinnedDoor()

    def send(size):
        flat = torch.full((size,), float(size), dtype=torch.float64)
        parcel = door._into_slot(flat)
        assert not parcel.arrived()
        return parcel

    for _ in range(5):
        first, second = send(10), send(20)
        assert first.numbers().tolist() == [10.0] * 10
        assert second.numbers().tolist() == [20.0] * 20
    assert made == [256, 256]
    assert len(send(1000).numbers()) == 1000
    assert made == [256, 256, 2000]
    kept = send(3).numbers()
    send(3).numbers()[:] = 0.0
    assert kept.tolist() == [3.0] * 3  # a copy: the slot is used again
    assert len(made) == 3
