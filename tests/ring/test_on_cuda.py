"""On a real CUDA device: nobody waits, norms are right, training is what it would be without.

`torch.cuda.set_sync_debug_mode("error")` raises where an operation of torch makes the host wait;
the profiler's trace shows the calls of the runtime as well.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim

from lightning_gradwatch import GradientWatcher
from lightning_gradwatch.actions import ClipGradNorm, ClipGradValue, ZClip
from lightning_gradwatch.probe.ring import PinnedDoor, Ring
from lightning_gradwatch.probe.wide import wide_norms, wide_total
from tests.ring.runs import Net

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

NAN = float("nan")
ACTIONS: dict[str, Any] = {
    "none": list,
    "norm": lambda: [ClipGradNorm(0.05)],
    "another norm": lambda: [ClipGradNorm(0.05, 3.0)],
    "value": lambda: [ClipGradValue(0.01)],
}


@contextmanager
def nobody_waits() -> Iterator[None]:
    """Raise where the host waits for the device; our guard would make it a warning: raise those."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="GradWatch.*")
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


class Plain(nn.Module):
    """Without what waits by itself (cuDNN's RNN does not, its dropout state might)."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [m for _ in range(6) for m in (nn.Linear(64, 64), nn.ReLU())]
        self.net = nn.Sequential(*layers, nn.Linear(64, 1))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.to("cuda", dtype)

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        return (self.net(x) * self.scale).square().mean()


def train(
    model: Plain, optimizer: optim.Optimizer, steps: int, watcher: Any = None, quiet_from: int = 99
) -> None:
    x = torch.randn(steps, 32, 64, device="cuda", dtype=model.scale.dtype)
    torch.cuda.synchronize()
    for step in range(steps):
        with nobody_waits() if step >= quiet_from else warnings.catch_warnings():
            optimizer.zero_grad()
            loss = model.loss(x[step])
            loss.backward()
            if watcher is not None:
                watcher.step(loss=loss)
            optimizer.step()


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm_type", [2.0, 1.0, "inf"])
def test_no_step_waits_for_the_device(actions, fused, dtype, norm_type):
    model = Plain(dtype)
    adam = optim.AdamW(model.parameters(), 1e-3, fused=fused, foreach=not fused)
    watcher = GradientWatcher(
        model, adam, reporters=[], actions=ACTIONS[actions](), norm_type=norm_type,
        flow_every_n_steps=3, log_every_n_steps=1000,
    )  # fmt: skip
    with watcher:
        assert isinstance(watcher._engine._later.ring, Ring)
        train(model, adam, 40, watcher, quiet_from=4)
        assert watcher._engine._later.ring.waits == 0
    assert len(watcher.history) == 40
    assert np.isfinite(watcher.history.global_norm).all()


def test_the_trace_holds_no_call_that_waits():
    model = Plain()
    adam = optim.AdamW(model.parameters(), 1e-3, fused=True)
    watcher = GradientWatcher(
        model, adam, reporters=[], actions=[ClipGradNorm(0.05)], flow_every_n_steps=3,
        log_every_n_steps=1000,
    )  # fmt: skip
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    x = torch.randn(32, 64, device="cuda")
    with watcher:
        train(model, adam, 12, watcher)
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=kinds) as profile:
            for _ in range(8):
                with torch.profiler.record_function("one step"):
                    adam.zero_grad()
                    loss = model.loss(x)
                    loss.backward()
                    watcher.step(loss=loss)
                    adam.step()
        events = profile.events()
        # The profiler itself waits at its end, so only what lies inside of a step counts.
        spans = [
            e.time_range for e in events if e.name == "one step" and e.device_type.name == "CPU"
        ]
        waiting = [
            e.name
            for e in events
            if ("Synchronize" in e.name or e.name == "cudaMemcpy")
            and any(s.start <= e.time_range.start <= s.end for s in spans)
        ]
        assert len(spans) == 8
        # An event that has passed is asked for its numbers at once: that call does not wait.
        assert [name for name in waiting if name != "cudaEventSynchronize"] == []
        assert watcher._engine._later.ring.waits == 0


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_norms_are_exact(kind, p):
    torch.manual_seed(0)
    low, high = (1e-4, 1e3) if kind == torch.float16 else (1e-30, 1e30)
    sizes = [1, 7, 65_537, 3_000_000, 0, 1000]
    grads = [torch.randn(n, device="cuda", dtype=torch.float64) for n in sizes]
    grads = [
        (g * s).to(kind) for g, s in zip(grads, [low, 1.0, high, 1.0, 1.0, low * 10], strict=True)
    ]
    grads += [torch.full((5,), bad, device="cuda", dtype=kind) for bad in (NAN, math.inf)]
    measured = wide_norms(grads, p)
    norms = np.zeros(len(grads))
    for places, vector in measured:
        norms[places] = vector.cpu().numpy()
    for grad, norm in zip(grads[:-2], norms, strict=False):
        x = grad.double().abs()
        top = float(x.max()) if x.numel() else 0.0
        truth = top if math.isinf(p) or not top else top * float(((x / top) ** p).sum()) ** (1 / p)
        assert norm == pytest.approx(truth, rel=1e-6)
    assert math.isnan(norms[-2])
    assert math.isinf(norms[-1])
    finite = [v for places, v in wide_norms(grads[:-2], p)]
    x = norms[:-2]
    top = x.max()
    truth = top if math.isinf(p) else top * float(((x / top) ** p).sum()) ** (1 / p)
    assert float(wide_total(finite, p)) == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("fused", [False, True])
def test_weights_are_those_of_a_run_without(fused):
    ends = []
    for watched in (False, True):
        torch.manual_seed(3)
        model = Plain()
        adam = optim.AdamW(model.parameters(), 1e-3, fused=fused, foreach=not fused)
        if watched:
            with GradientWatcher(model, adam, reporters=[], flow_every_n_steps=2) as watcher:
                train(model, adam, 30, watcher)
        else:
            train(model, adam, 30)
        ends.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_clipping_on_the_device_is_clipping_by_hand(fused, dtype):
    ends, used = [], []
    for ours in (False, True):
        torch.manual_seed(3)
        model = Plain(dtype)
        sgd = optim.SGD(model.parameters(), 0.1, fused=fused)
        x = torch.randn(32, 64, device="cuda", dtype=dtype)
        watcher = GradientWatcher(
            model, sgd, reporters=[], actions=[ClipGradNorm(1e-3)] if ours else []
        )
        with watcher:
            for _ in range(5):
                sgd.zero_grad()
                model.loss(x).backward()
                watcher.step()
                if not ours:
                    norm = wide_total([v for _, v in wide_norms(grads_of(model), 2.0)], 2.0)
                    for p in model.parameters():
                        p.grad.copy_(p.grad.double() * min(1.0, 1e-3 / float(norm)))
                sgd.step()
        ends.append([p.detach().float() for p in model.parameters()])
        used.append(watcher.history.clipped_norm)
        if ours:
            assert len(watcher.actions_taken) == 5
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)
    assert used[1] == pytest.approx([1e-3] * 5)


def grads_of(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


def test_late_numbers_are_those_that_are_waited_for(monkeypatch):
    told = []
    for door in (PinnedDoor(), None):
        monkeypatch.setattr("lightning_gradwatch.engine.door_for", lambda devices, d=door: d)
        torch.manual_seed(0)
        net = Net().to("cuda")
        sgd = optim.SGD(net.parameters(), 0.05)
        with GradientWatcher(net, sgd, reporters=[], flow_every_n_steps=4) as watcher:
            for step in range(30):
                sgd.zero_grad()
                torch.manual_seed(step)
                loss = net(torch.randn(4, 6, 3).cuda()).square().mean()
                loss.backward()
                watcher.step(loss=loss)
                sgd.step()
        told.append(watcher.history)
    for name in ("steps", "grad_norm", "global_norm", "clipped_norm", "loss", "update_ratio"):
        a, b = (getattr(history, name) for history in told)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-9, equal_nan=True, err_msg=name)


def test_an_action_of_the_host_is_given_the_step_itself():
    model = Plain()
    sgd = optim.SGD(model.parameters(), 0.1)
    with GradientWatcher(model, sgd, reporters=[], actions=[ZClip()]) as watcher:
        assert watcher._engine._later is None
        train(model, sgd, 3, watcher)
    assert len(watcher.history) == 3


def test_a_nan_is_found_at_its_step():
    model = Net().to("cuda")
    sgd = optim.SGD(model.parameters(), 0.0)
    with GradientWatcher(model, sgd, reporters=[]) as watcher:
        for step in range(20):
            sgd.zero_grad()
            loss = model(torch.randn(4, 6, 3, device="cuda")).square().mean()
            loss = loss * (NAN if step == 11 else 1.0)
            loss.backward()
            watcher.step(loss=loss)
            if step != 11:
                sgd.step()
    [found] = [f for f in watcher.findings if f.code == "nonfinite"]
    assert (found.first_step, found.last_step, found.count) == (11, 11, 1)
