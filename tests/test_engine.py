"""The engine in a bare loop: ranks that agree, actions that act, a watcher as a context manager."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_gradwatch import GradientWatcher
from lightning_gradwatch.actions import ClipGradNorm, DecayLR, SkipStep, StopTraining
from lightning_gradwatch.engine import Engine
from lightning_gradwatch.finding import CODES
from lightning_gradwatch.hands import Hands
from lightning_gradwatch.probe.step import StepContext
from lightning_gradwatch.reporters.protocol import RunInfo
from lightning_gradwatch.settings import Settings

NAN = float("nan")


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def steps(watcher, model, optimizer, poison=()):
    for i in range(6):
        loss = model(torch.ones(3, 4)).square().mean() * (NAN if i in poison else 1.0)
        optimizer.zero_grad()
        loss.backward()
        watcher.step(loss=loss)
        optimizer.step()


def test_nan_in_a_bare_loop_is_skipped_and_told():
    model = net()
    adam = torch.optim.AdamW(model.parameters())
    with GradientWatcher(model, adam, reporters=[], actions=[SkipStep()]) as watcher:
        steps(watcher, model, adam, poison=(2, 3))
    assert [f.code for f in watcher.findings] == ["nonfinite"]
    assert [r.step for r in watcher.actions_taken] == [2, 3]
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert watcher.history.recorded == 6


def test_clip_and_decay_and_stop_in_a_bare_loop():
    model = net()
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(sgd, lambda step: 1.0)
    actions = [ClipGradNorm(1e-3), DecayLR(on=("nonfinite",)), StopTraining(on=("nonfinite",))]
    with GradientWatcher(
        model, sgd, reporters=[], actions=actions, schedulers=[schedule]
    ) as watcher:
        steps(watcher, model, sgd, poison=(4,))
        schedule.step()
    assert watcher.history.clipped_norm[:4] == pytest.approx([1e-3] * 4)
    assert sgd.param_groups[0]["lr"] == pytest.approx(0.05)
    assert watcher.should_stop.startswith("StopTraining")


def test_without_an_optimizer_all_gradients_are_read():
    model = net()
    with GradientWatcher(model, reporters=[]) as watcher:
        model(torch.ones(2, 4)).sum().backward()
        watcher.step()
    assert watcher.history.has_grad.all()
    assert math.isnan(watcher.history.lr[0])


def test_step_outside_the_block_is_refused():
    watcher = GradientWatcher(net(), reporters=[])
    with pytest.raises(RuntimeError, match="with"):
        watcher.step()


def test_wrong_model_is_refused():
    with pytest.raises(TypeError, match=r"nn\.Module.*dict"):
        GradientWatcher({"a": 1})


def test_bare_gradient_scaler():
    model = net()
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with GradientWatcher(model, sgd, scaler=scaler, reporters=[]) as watcher:
        loss = model(torch.ones(3, 4)).square().mean()
        scaler.scale(loss).backward()
        watcher.step(loss=loss)
        scaler.step(sgd)
        scaler.update()
    model2 = net()
    model2(torch.ones(3, 4)).square().mean().backward()
    norm = math.hypot(*(float(p.grad.norm()) for p in model2.parameters()))
    assert watcher.history.global_norm[0] == pytest.approx(norm, rel=1e-5)
    assert watcher.history.loss[0] == pytest.approx(loss.item(), rel=1e-5)


class OtherRank:
    """Stands for another process: found NaN at one step, and counts how often it is asked."""

    def __init__(self, step: int) -> None:
        self.step, self.calls = step, 0

    def __call__(self, numbers: list[float]) -> list[float]:
        self.calls += 1
        found = self.calls - 1 == self.step
        return [
            n + (found and i == sorted(CODES).index("nonfinite")) for i, n in enumerate(numbers)
        ]


@pytest.mark.parametrize("broken", [False, True])
def test_ranks_act_together_and_none_waits(broken, monkeypatch):
    model, other = net(), OtherRank(step=2)
    sgd = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.1)
    settings = Settings()
    engine = Engine(settings, [], [SkipStep(), DecayLR(on=("nonfinite",), cooldown=9)], [])
    engine.start(model, [sgd], RunInfo(), Hands(add=other, ranks=2))
    if broken:
        monkeypatch.setattr(engine._probe, "read", lambda context: 1 / 0)
        with pytest.warns(UserWarning, match="Probe failed"):
            run(engine, model, sgd)
    else:
        run(engine, model, sgd)
        assert [(r.action, r.step) for r in engine.records] == [("SkipStep", 2), ("DecayLR", 2)]
        assert "another rank" in engine.records[0].reason
    # Once a step; and SkipStep asks whether a gradient is broken anywhere, or only a loss.
    assert other.calls == (4 if broken else 5)
    engine.stop()


def run(engine, model, sgd):
    for i in range(4):
        sgd.zero_grad()
        model(torch.ones(3, 4)).square().mean().backward()
        engine.before_step(StepContext(step=i, optimizer=sgd))
        sgd.step()


def test_the_diagnosis_learns_what_the_model_calls_and_is_given():
    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 1)

        def forward(self, x):
            return self.last(torch.sigmoid(self.first(x)))

    model = Called()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with GradientWatcher(model, optimizer, record=False) as watcher:
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(50 * torch.ones(8, 4)).square().mean()
            loss.backward()
            watcher.step(loss=loss)
            optimizer.step()
        facts = watcher._engine.diagnosis.facts
    assert facts.activations == {"Sigmoid": ("sigmoid(first)",)}
    assert facts.input_rms == pytest.approx(50)
