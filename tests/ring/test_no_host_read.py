"""A step that logs nothing asks the device for nothing: counted on the CPU, in CUDA's code path."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_gradwatch import GradientWatcher
from lightning_gradwatch.actions import ClipGradNorm, ClipGradValue, SkipStep, ZClip
from lightning_gradwatch.detectors import NonFiniteGradient
from lightning_gradwatch.engine import Engine
from lightning_gradwatch.hands import Hands
from lightning_gradwatch.probe.step import StepContext
from lightning_gradwatch.reporters.protocol import RunInfo
from lightning_gradwatch.settings import Settings
from tests.ring.doors import LateDoor
from tests.ring.host_reads import host_reads, reads_off
from tests.ring.runs import Net, losses

NAN = float("nan")

ACTIONS: dict[str, Any] = {
    "none": list,
    "norm": lambda: [ClipGradNorm(0.05)],
    "another norm": lambda: [ClipGradNorm(0.05, 1.0)],
    "value": lambda: [ClipGradValue(0.01)],
    "both": lambda: [ClipGradNorm(0.1), ClipGradValue(0.02)],
}


def late(monkeypatch: pytest.MonkeyPatch) -> LateDoor:
    door = LateDoor(2)
    monkeypatch.setattr("lightning_gradwatch.engine.door_for", lambda devices: door)
    return door


SKIP = {"skip": lambda: [SkipStep(), ClipGradNorm(0.05)]}  # where the optimizer is fused
CASES = [
    *((actions, fused, 2.0) for actions in ACTIONS for fused in (False, True)),
    ("skip", True, 2.0),
    *((actions, True, p) for actions in ("none", "both") for p in (1.0, 3.0, "inf")),
]


@pytest.mark.parametrize(("actions", "fused", "norm_type"), CASES)
def test_no_step_reads_a_number(actions, fused, norm_type, monkeypatch):
    """Hooks of the flow, weight changes, other people's clipping and a NaN included."""
    door = late(monkeypatch)
    net = Net()
    adam = optim.AdamW(net.parameters(), 0.01, fused=fused)
    watcher = GradientWatcher(
        net, adam, reporters=[], actions=(ACTIONS | SKIP)[actions](), norm_type=norm_type,
        flow_every_n_steps=4, log_every_n_steps=1000,
    )  # fmt: skip
    with watcher, host_reads(monkeypatch) as reads:
        engine = watcher._engine
        # What the door does with a vector stands for the copy that the device makes by itself.
        monkeypatch.setattr(door, "send", _uncounted(reads, door.send))
        for name in ("before_step", "after_step", "begin_batch"):
            monkeypatch.setattr(engine, name, _counted(reads, getattr(engine, name)))
        host = engine._probe.host.reads
        for step in range(24):
            adam.zero_grad()
            loss = losses(net, step, {14: NAN})
            loss.backward()
            watcher.step(loss=loss)
            if step % 3 == 0:
                nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            adam.step()
        assert reads.seen == []
        assert engine._probe.host.reads == host
        assert engine._later.ring.waits == 0
    assert len(watcher.history) == 24
    assert [f.code for f in watcher.findings if f.code == "nonfinite"] == ["nonfinite"]


def _uncounted(reads: Any, method: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        with reads_off(reads):
            return method(*args, **kwargs)

    return call


def _counted(reads: Any, method: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        with reads.counting():
            return method(*args, **kwargs)

    return call


def test_hooks_on_modules_read_no_number(monkeypatch):
    late(monkeypatch)
    net = Net()
    watcher = GradientWatcher(net, reporters=[], flow_every_n_steps=1)
    with watcher, host_reads(monkeypatch) as reads:
        with reads.counting():
            x = torch.randn(4, 6, 3)
            net(x).square().mean().backward()
        assert reads.seen == []


def test_the_counter_sees_what_it_is_there_for(monkeypatch):
    with host_reads(monkeypatch) as reads, reads.counting():
        x = torch.ones(3)
        x.sum().item(), x.tolist(), x.cpu(), bool(x.sum() > 1), x[x > 0], x.nonzero()
        torch.tensor([1.0])
    assert reads.seen == [
        "item", "tolist", "cpu", "__bool__", "index", "nonzero", "tensor",
    ]  # fmt: skip


# ---------------------------------------------------------------------- a CUDA device on paper


class NoCopies(TorchDispatchMode):
    """Refuses copies from the host, which CUDA waits for unless they come from pinned memory."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name == "where" and len({arg.device for arg in args}) > 1:
            raise AssertionError("where() copies a number from the host to the device")
        if name in ("_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            if source.device.type != out.device.type:
                raise AssertionError(f"{name} from {source.device} to {out.device}")
        return out


class PaperDoor:
    """Takes vectors of a device that computes nothing; what arrives are numbers of its own."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def send(self, flat: torch.Tensor) -> Any:
        assert flat.device.type == "cuda"
        assert flat.dtype == torch.float64
        self.sizes.append(flat.numel())
        return _Paper(flat.numel())


class _Paper:
    def __init__(self, size: int) -> None:
        self.size = size

    def arrived(self) -> bool:
        return True

    def numbers(self) -> Any:
        return np.linspace(0.5, 1.0, self.size)


def on_paper(
    actions: Sequence[Any], kind: Any, dtype: torch.dtype, scaler: Any, **options: Any
) -> tuple[Engine, PaperDoor]:
    """Twelve steps of an optimizer on a CUDA device that exists on paper only.

    Its tensors have a device and no numbers: asking for one is an error, and so is mixing devices.
    """
    door = PaperDoor()
    with FakeTensorMode(), NoCopies(), torch.no_grad():
        net = nn.Module()
        for i, shape in enumerate([(3, 4), (4,), (), (2, 3, 3, 3), (0, 2)]):
            p = nn.Parameter(torch.empty(shape, device="cuda", dtype=dtype))
            net.register_parameter(f"p{i}", p)
        optimizer = kind(net.parameters(), lr=0.1)
        engine = Engine(Settings(**options), [NonFiniteGradient()], actions, [])
        engine.guard.call = lambda part, method, *a, default, **k: method(*a, **k)  # let all out
        engine.start(net, [optimizer], RunInfo(), Hands())
        assert engine._later is not None
        engine._later.ring._door = door
        for step in range(12):
            for p in net.parameters():
                p.grad = torch.empty_like(p)
            engine.add_loss(torch.empty((), device="cuda"))
            engine.before_step(
                StepContext(step=step, optimizer=optimizer, scaler=scaler), may_change=step % 2 > 0
            )
            if step == 5:
                net.p0.grad.mul_(2.0)
            optimizer.step()
        engine.settle()
        assert len(engine.history) == 12
        assert engine._later.ring.waits == 0
    return engine, door


@pytest.fixture
def no_facts(monkeypatch):
    """Reading the model's facts at the start is one look that is allowed."""
    from lightning_gradwatch.facts import ModelFacts

    if torch.__version__.startswith("2.4."):
        pytest.skip("on paper torch 2.4 has neither pinned memory nor fused optimizers")
    monkeypatch.setattr(
        "lightning_gradwatch.engine.read_facts", lambda *_: ModelFacts(parameters=1)
    )


class PaperScaler:
    """What of a gradient scaler is asked without a look at a number."""

    _scale = property(lambda self: torch.full((), 8.0, device="cuda"))
    _per_optimizer_states: dict[int, Any] = {}  # noqa: RUF012  # as the original has it

    def is_enabled(self):
        return True

    def unscale_(self, optimizer):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad.mul_(0.125)


@pytest.mark.usefixtures("no_facts")
@pytest.mark.parametrize("scaler", [None, PaperScaler()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("actions", ACTIONS)
def test_on_a_device_on_paper_no_number_is_asked_for(actions, dtype, scaler):
    for kind in (optim.SGD, lambda p, lr: optim.AdamW(p, lr, fused=True)):
        _, door = on_paper(ACTIONS[actions](), kind, dtype, scaler)
        assert len(door.sizes) >= 12
        assert max(door.sizes) < 100


@pytest.mark.usefixtures("no_facts")
def test_nor_to_skip():
    engine, door = on_paper(
        SKIP["skip"](), lambda p, lr: optim.AdamW(p, lr, fused=True), torch.float32, None
    )
    assert len(door.sizes) >= 12
    assert {record.action for record in engine.records} == {"SkipStep"}


@pytest.mark.usefixtures("no_facts")
@pytest.mark.parametrize("norm_type", [1.0, float("inf")])
def test_nor_for_another_norm(norm_type):
    on_paper(ACTIONS["both"](), optim.SGD, torch.float32, None, norm_type=norm_type)


def test_paper_shows_what_it_is_there_for():
    refused = (DataDependentOutputException, AssertionError, RuntimeError)
    with FakeTensorMode(), NoCopies():
        x = torch.empty(3, device="cuda")
        for look in (
            lambda: x.sum().item(), lambda: bool(x.sum() > 0), x.nonzero, x.cpu,
            lambda: torch.tensor([1.0], device="cuda"), lambda: x.new_tensor(1.0),
        ):  # fmt: skip
            with pytest.raises(refused):
                look()


@pytest.mark.usefixtures("no_facts")
def test_an_action_of_the_host_asks_on_paper_too():
    with FakeTensorMode(), NoCopies(), torch.no_grad():
        net = nn.Module()
        net.p = nn.Parameter(torch.empty(3, device="cuda"))
        engine = Engine(Settings(), [], [ZClip()], [])
        engine.guard.call = lambda part, method, *a, default, **k: method(*a, **k)
        sgd = optim.SGD(net.parameters(), 0.1)
        engine.start(net, [sgd], RunInfo(), Hands())
        assert engine._later is None
        net.p.grad = torch.empty_like(net.p)
        with pytest.raises((DataDependentOutputException, AssertionError)):
            engine.before_step(StepContext(step=0, optimizer=sgd))


def test_numbers_under_way_keep_no_gradient_alive(monkeypatch):
    monkeypatch.setattr("lightning_gradwatch.engine.door_for", lambda devices: LateDoor(1000))
    net = Net()
    sgd = optim.SGD(net.parameters(), 0.01)
    with GradientWatcher(net, sgd, reporters=[], actions=[ClipGradNorm(0.1)]) as watcher:
        for step in range(6):
            sgd.zero_grad()
            losses(net, step, {}).backward()
            watcher.step()
            sgd.step()
        assert len(watcher._engine._later.ring) >= 6
        kept = [weakref.ref(p.grad) for p in net.parameters() if p.grad is not None]
        sgd.zero_grad()
        gc.collect()
        assert kept
        assert not any(ref() is not None for ref in kept)
