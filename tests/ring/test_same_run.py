"""A run whose numbers come late is the run whose numbers are waited for, event by event."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn, optim

from lightning_gradwatch.actions import ClipGradNorm, ClipGradValue, SkipStep, ZClip
from lightning_gradwatch.probe.ring import Ring
from tests.ring.doors import LateDoor
from tests.ring.runs import assert_same, read_wide, run

NAN, INF = float("nan"), float("inf")
LATE = [1, 7, (0, 9)]


def two_optimizers(net: nn.Module) -> list[optim.Optimizer]:
    return [optim.SGD(net.rnn.parameters(), 0.05), optim.Adam(net.head.parameters(), 0.01)]


def one(kind: Any, **options: Any) -> Any:
    return lambda net: [kind(net.parameters(), **options)]


SGD = one(optim.SGD, lr=0.05, momentum=0.9)
FUSED = one(optim.AdamW, lr=0.01, fused=True)
BAD = {6: 30.0, 17: NAN, 18: 1.0, 25: INF}
SCALER = partial(torch.amp.GradScaler, "cpu", init_scale=2.0**10, growth_interval=4)

RUNS: dict[str, dict[str, Any]] = {
    "plain": {"make": SGD},
    "NaN and Inf": {"make": one(optim.SGD, lr=0.0), "at": BAD},
    "NaN that kills": {"make": SGD, "at": {9: NAN}},
    "diverges": {"make": one(optim.SGD, lr=30.0), "steps": 30},
    "tiny gradients": {"make": SGD, "at": dict.fromkeys(range(10, 40), 1e-32)},
    "huge gradients": {"make": one(optim.SGD, lr=0.0), "at": dict.fromkeys(range(12, 40), 1e25)},
    "adam": {"make": FUSED},
    "two optimizers": {"make": two_optimizers, "at": {11: 50.0}},
    "every third step": {"make": SGD, "every_n_steps": 3},
    "others clip": {"make": SGD, "others_clip": 0.02},
    "p = 1": {"make": SGD, "norm_type": 1.0},
    "p = 3": {"make": SGD, "norm_type": 3.0, "others_clip": 0.1},
    "p = inf": {"make": SGD, "norm_type": "inf"},
    "a part is left out": {"make": SGD, "exclude": ["rnn*"], "at": {8: NAN}},
    "scaler": {"make": SGD, "scaler": SCALER, "at": {4: 1e38, 14: 1e38, 20: NAN}},
    "scaler, fused": {"make": FUSED, "scaler": SCALER, "at": {1: 1e38, 5: 1e38, 20: NAN}},
    "clips": {"make": SGD, "actions": lambda: [ClipGradNorm(0.05)], "at": BAD},
    "clips, adam": {"make": FUSED, "actions": lambda: [ClipGradNorm(0.05)], "at": {5: NAN}},
    "clips another norm": {"make": SGD, "actions": lambda: [ClipGradNorm(0.05, 1.0)]},
    "clips values": {"make": SGD, "actions": lambda: [ClipGradValue(0.01)], "at": BAD},
    "clips twice": {
        "make": SGD, "actions": lambda: [ClipGradNorm(0.1), ClipGradValue(0.02)],
        "others_clip": 0.05,
    },
    "clips values, then norms": {
        "make": FUSED, "actions": lambda: [ClipGradValue(0.01), ClipGradNorm(0.015, "inf")],
    },
    "two optimizers clip": {"make": two_optimizers, "actions": lambda: [ClipGradNorm(0.1)]},
    "skips, adam": {
        "make": FUSED, "at": BAD | {0: NAN, 12: INF, 13: NAN, 26: NAN, 27: NAN},
        "actions": lambda: [SkipStep(max_consecutive=3)],
    },
    "skips and clips, sgd": {
        "make": one(optim.SGD, lr=0.05, momentum=0.9, fused=True), "at": BAD | {0: NAN, 1: NAN},
        "actions": lambda: [SkipStep(), ClipGradNorm(0.05)], "others_clip": 0.1,
    },
    "clips, then skips": {
        "make": FUSED, "at": BAD | {11: NAN},
        "actions": lambda: [ClipGradNorm(0.05), SkipStep(), ClipGradValue(0.02)],
    },
    "skips, not fused": {"make": SGD, "at": BAD, "actions": lambda: [SkipStep()]},
    "scaler, skips": {
        "make": FUSED, "scaler": SCALER, "at": {4: 1e38, 20: NAN}, "actions": lambda: [SkipStep()],
    },
    "scaler, clips": {
        "make": SGD, "scaler": SCALER, "at": {4: 1e38, 20: NAN},
        "actions": lambda: [ClipGradNorm(0.1), ClipGradValue(0.03)],
    },
    "scaler, fused, clips": {
        "make": FUSED, "scaler": SCALER, "at": {4: 1e38, 20: NAN},
        "actions": lambda: [ClipGradNorm(0.1), ClipGradValue(0.03)],
    },
}  # fmt: skip


#: Runs in which the host has to decide on every step.
HOST = ("skips, not fused", "scaler, skips")


def ran(name: str, monkeypatch: pytest.MonkeyPatch, late: Any = None) -> tuple[Any, Any]:
    door = None if late is None else LateDoor(late)
    monkeypatch.setattr("lightning_gradwatch.engine.door_for", lambda devices: door)
    options = dict(RUNS[name])
    options["actions"] = options.get("actions", list)()
    told = run(**options)
    assert isinstance(told.pop("ring"), Ring if late is not None else type(None))
    return told, door


@pytest.mark.parametrize("name", RUNS)
def test_late_numbers_make_the_same_run(name, monkeypatch):
    read_wide(monkeypatch)
    waited_for, _ = ran(name, monkeypatch)
    assert len(waited_for["events"]) > 5
    first, _ = ran(name, monkeypatch, 0)
    # Where an action measures the norm, it is summed on the device and not on the host.
    assert_same(waited_for, first, name, rel=1e-15 if "clips" in name else 0.0)
    for late in LATE:
        told, door = ran(name, monkeypatch, late)
        assert_same(first, told, f"{name}, late {late}")
        assert (door.sent > 20) == (name not in HOST)


@pytest.mark.parametrize("name", RUNS)
def test_norms_are_those_of_the_path_that_waits(name, monkeypatch):
    """Read in float64 at once, or in float32 with a second look: the same to rounding."""
    at_once, _ = ran(name, monkeypatch)
    late, _ = ran(name, monkeypatch, 2)
    for told in (at_once, late):  # differences of weights, in which rounding is larger
        del told["history"]["update_ratio"]
    assert_same(at_once["history"], late["history"], name, rel=2e-5)
    assert_same(at_once["weights"], late["weights"], name, rel=2e-5)
    for key in ("code", "first_step", "last_step", "count", "layers"):
        codes = [[f[key] for f in told["findings"]] for told in (at_once, late)]
        assert codes[0] == codes[1]


def test_nobody_waits_between_logs(monkeypatch):
    _, door = ran("plain", monkeypatch, 3)
    # Three logs, the report, the end: each may wait for the latest three steps.
    assert door.waited <= 5 * 3


def test_an_action_that_decides_on_the_host_is_given_its_numbers_at_once(monkeypatch):
    door = LateDoor(3)
    monkeypatch.setattr("lightning_gradwatch.engine.door_for", lambda devices: door)
    told = run(SGD, actions=[ClipGradNorm(0.05), ZClip()])
    assert told["ring"] is None
    assert door.sent == 0
    assert len(told["records"]) > 10


class Louder(ClipGradNorm):
    """A user's own, which looks at the norm."""

    def apply(self, findings, training):
        assert training.global_norm > 0
        return super().apply(findings, training)


def test_who_overrides_apply_alone_decides_on_the_host(monkeypatch):
    monkeypatch.setattr("lightning_gradwatch.engine.door_for", lambda devices: LateDoor(3))
    assert run(SGD, actions=[Louder(0.05)])["ring"] is None
