"""Steps that are judged together make the run that steps judged one by one make."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim

from lightning_gradwatch import GradientWatcher, GradWatchWarning, together
from lightning_gradwatch.actions import ClipGradNorm, ClipGradValue, SkipStep
from lightning_gradwatch.engine import Engine
from lightning_gradwatch.probe.taken import Taken
from lightning_gradwatch.together import Together
from tests.ring.runs import Net, assert_same, losses, run

NAN, INF = float("nan"), float("inf")


def sgd(net: nn.Module, lr: float = 0.05) -> list[optim.Optimizer]:
    return [optim.SGD(net.parameters(), lr, momentum=0.9)]


def two(net: nn.Module) -> list[optim.Optimizer]:
    return [optim.SGD(net.rnn.parameters(), 0.05), optim.Adam(net.head.parameters(), 0.01)]


RUNS: dict[str, dict[str, Any]] = {
    "plain": {"make": sgd},
    "NaN and Inf": {"make": partial(sgd, lr=0.0), "at": {6: 30.0, 17: NAN, 18: 1.0, 25: INF}},
    "NaN that kills": {"make": sgd, "at": {9: NAN}},
    "diverges": {"make": partial(sgd, lr=30.0), "steps": 30},
    "two optimizers": {"make": two, "at": {11: 50.0}},
    "every third step": {"make": sgd, "every_n_steps": 3},
    "others clip": {"make": sgd, "others_clip": 0.02},
    "clips": {"make": sgd, "actions": lambda: [ClipGradNorm(0.05)], "at": {5: 30.0, 17: NAN}},
    "clips values": {"make": sgd, "actions": lambda: [ClipGradValue(0.01)]},
    "scaler": {
        "make": sgd, "at": {4: 1e38, 20: NAN},
        "scaler": partial(torch.amp.GradScaler, "cpu", init_scale=2.0**10),
    },
}  # fmt: skip


def ran(name: str) -> dict[str, Any]:
    options = dict(RUNS[name])
    return run(**options | {"actions": options.get("actions", list)()})


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("steps", [7, 16])
def test_the_same_run(name, steps, monkeypatch):
    told = []
    for together_at_most in (1, steps):
        monkeypatch.setattr(together, "STEPS", together_at_most)
        monkeypatch.setattr(together, "SECONDS", 1e9)
        told.append(ran(name))
    for one in told:
        assert one.pop("ring") is not None
    assert len(told[0]["events"]) > 5
    assert_same(told[0], told[1], name)


@pytest.mark.parametrize("name", RUNS)
def test_the_run_that_is_judged_at_once(name, monkeypatch):
    late = ran(name)
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_later_for", lambda *_: None)
        at_once = ran(name)
    assert (late.pop("ring"), at_once.pop("ring")) != (None, None)
    for key in ("history", "findings", "weights", "records", "report", "state"):
        assert_same(at_once[key], late[key], f"{name}: {key}")


def watched(net: nn.Module, **options: Any) -> tuple[GradientWatcher, optim.Optimizer]:
    optimizer = optim.SGD(net.parameters(), 0.01)
    return GradientWatcher(net, optimizer, reporters=[], **options), optimizer


def train(net: nn.Module, watcher: GradientWatcher, optimizer: optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        loss = losses(net, step, {})
        loss.backward()
        watcher.step(loss=loss)
        optimizer.step()


def test_whoever_asks_is_told_of_every_step():
    net = Net()
    watcher, optimizer = watched(net)
    with watcher:
        assert isinstance(watcher._engine._later, Together)
        for step in range(9):
            optimizer.zero_grad()
            loss = losses(net, step, {})
            loss.backward()
            watcher.step(loss=loss)
            optimizer.step()
            assert len(watcher.history) == step + 1
        assert watcher.report().to_dict()["steps"] == 9


def test_a_nan_is_found_before_its_step_is_made():
    net = Net()
    watcher, optimizer = watched(net)
    with watcher:
        for step in range(6):
            optimizer.zero_grad()
            loss = losses(net, step, {5: NAN})
            loss.backward()
            watcher.step(loss=loss)
            judge = watcher._engine.judge  # not asked through the engine, which would catch up
            assert len(judge.history) == (6 if step == 5 else 0)
        assert [f.code for f in judge.diagnosis.findings if f.code == "nonfinite"] == ["nonfinite"]
        assert all(torch.isfinite(p).all() for p in net.parameters())


def test_slow_steps_wait_for_none(monkeypatch):
    monkeypatch.setattr(together, "SECONDS", 0.0)
    net = Net()
    watcher, optimizer = watched(net)
    with watcher:
        for step in range(3):
            loss = losses(net, step, {})
            loss.backward()
            watcher.step(loss=loss)
            assert len(watcher._engine.judge.history) == step + 1
            optimizer.step()


def test_an_exception_loses_no_step():
    net = Net()
    watcher, optimizer = watched(net)
    watcher.__enter__()
    train(net, watcher, optimizer, 5)
    watcher.__exit__(KeyError, KeyError(), None)
    assert len(watcher.history) == 5


def test_a_failing_judgement_switches_the_probe_off_and_training_goes_on(monkeypatch):
    net = Net()
    watcher, optimizer = watched(net)
    with watcher:
        monkeypatch.setattr("lightning_gradwatch.probe.taken.Taken.make", lambda *_: 1 / 0)
        with pytest.warns(UserWarning, match="switched off"):
            train(net, watcher, optimizer, 20)


def test_an_action_is_shown_the_whole_sample_if_it_asks():
    class Looks(ClipGradNorm):
        def __init__(self) -> None:
            super().__init__(0.05)
            self.seen: list[Any] = []

        def apply(self, findings: Any, training: Any) -> Any:
            sample = training.sample
            if sample.step % 2:
                self.seen.append((sample.step, sample.grad_norm, sample.global_norm, sample.loss))
            return super().apply(findings, training)

        def on_device(self, training: Any) -> Any:
            return super().on_device(training)

    action, net = Looks(), Net()
    watcher, optimizer = watched(net, actions=[action])
    with watcher:
        assert isinstance(watcher._engine._later, Together)
        train(net, watcher, optimizer, 12)
        history = watcher.history
    assert [step for step, *_ in action.seen] == [1, 3, 5, 7, 9, 11]
    for step, grad_norm, global_norm, loss in action.seen:
        np.testing.assert_allclose(grad_norm, history.grad_norm[step], rtol=1e-6)
        assert global_norm == pytest.approx(history.global_norm[step], rel=1e-6)
        assert loss == pytest.approx(history.loss[step], rel=1e-6)


def test_actions_are_not_kept_waiting():
    watcher, _ = watched(Net(), actions=[SkipStep()])
    with watcher:
        assert watcher._engine._later is None


def test_what_was_done_is_told_even_if_the_probe_fails_afterwards(monkeypatch):
    net = Net()
    watcher, optimizer = watched(net, actions=[ClipGradNorm(0.05)])
    make = Taken.make
    monkeypatch.setattr(
        Taken, "make", lambda taken, *a: 1 / 0 if taken.step.context.step == 3 else make(taken, *a)
    )
    engine = watcher._engine
    with pytest.warns(GradWatchWarning, match="ZeroDivisionError"), watcher:
        train(net, watcher, optimizer, 6)
    assert [record.step for record in engine.records] == list(range(6))
