"""Fused optimizers divide gradients in passing: the same result, and nothing left behind."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim

from lightning_gradwatch.actions import (
    AdaptiveClip,
    ClipGradNorm,
    ClipGradValue,
    SkipStep,
    Training,
)
from lightning_gradwatch.actions import gradients as change
from lightning_gradwatch.engine import Engine
from lightning_gradwatch.hands import Hands
from lightning_gradwatch.probe.step import StepContext
from lightning_gradwatch.reporters.protocol import RunInfo
from lightning_gradwatch.settings import Settings
from lightning_gradwatch.testing import make_sample
from tests.actions.steps import NONFINITE, parameters_with, reference_norm
from tests.actions.test_in_trainer import Net, OwnClipping, fit, scaler

torch.set_num_threads(1)
FUSED = {
    "SGD": partial(optim.SGD, lr=0.01, momentum=0.9, fused=True),
    "Adam": partial(optim.Adam, lr=0.01, fused=True),
    "AdamW": partial(optim.AdamW, lr=0.01, fused=True),
    "Adagrad": partial(optim.Adagrad, lr=0.01, fused=True),
}


def last_to_change(optimizer: optim.Optimizer) -> Training:
    parameters = [p for g in optimizer.param_groups for p in g["params"]]
    return Training(
        make_sample(grad_norm=[reference_norm(parameters)]),
        optimizer,
        lambda: [(f"layer{i}.weight", p) for i, p in enumerate(parameters) if p.grad is not None],
        last=True,
    )


@pytest.fixture
def no_multiplication(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, "multiply", lambda *_: pytest.fail("a pass over the gradients"))


@pytest.mark.usefixtures("no_multiplication")
@pytest.mark.parametrize("name", FUSED)
def test_no_pass_over_the_gradients_and_nothing_left_behind(tmp_path: Path, name: str) -> None:
    spy, watch, runner, _ = fit(tmp_path, [ClipGradNorm(0.1)], make=FUSED[name])
    assert len(watch.actions_taken) == 8
    assert spy.used == pytest.approx([0.1] * 8, rel=1e-5)
    assert watch.history.clipped_norm == pytest.approx([0.1] * 8, rel=1e-5)
    assert not hasattr(runner.optimizers[0], "grad_scale")


@pytest.mark.parametrize("name", FUSED)
def test_the_weights_are_those_of_clipping_by_hand(tmp_path: Path, name: str) -> None:
    ours, _, _, _ = fit(tmp_path, [ClipGradNorm(0.1)], make=FUSED[name])
    theirs, _, _, _ = fit(tmp_path, [], make=FUSED[name], watch=False, gradient_clip_val=0.1)
    assert torch.allclose(ours.weights[-1], theirs.weights[-1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [Net, OwnClipping])
def test_where_others_clip_after_us_gradients_are_changed_at_once(
    tmp_path: Path, kind: type[Net]
) -> None:
    clip = 0.2 if kind is Net else None
    spy, _, _, _ = fit(
        tmp_path, [ClipGradNorm(0.5)], make=FUSED["Adam"], kind=kind, gradient_clip_val=clip
    )
    assert spy.used == pytest.approx([0.2] * 8, rel=1e-4)


def test_with_a_scaler_it_is_the_scalers(tmp_path: Path) -> None:
    spy, _, _, _ = fit(tmp_path, [ClipGradNorm(0.1)], make=FUSED["Adam"], plugins=[scaler()])
    assert spy.used == pytest.approx([0.1] * 8, rel=1e-4)


@pytest.mark.parametrize(
    "second", [ClipGradValue(0.125), AdaptiveClip(exclude=()), ClipGradNorm(0.1, 1.0)]
)
def test_who_looks_at_gradients_afterwards_sees_them_clipped(second: Any) -> None:
    ends = []
    for first in (ClipGradNorm(1.0), None):
        parameters = parameters_with([torch.full((3, 2), 4.0), torch.full((2,), 0.5)])
        if first is None:
            nn.utils.clip_grad_norm_(parameters, 1.0)
        adam = FUSED["Adam"](parameters)
        training = last_to_change(adam)
        if first is not None:
            assert first.apply([], training) is not None
        assert second.apply([], training) is not None
        training.finish()
        adam.step()
        ends.append(torch.cat([p.grad.flatten() for p in parameters]))
    assert torch.allclose(ends[0], ends[1], rtol=1e-5)


def test_a_skip_after_a_clip_leaves_nothing_to_do() -> None:
    adam = FUSED["Adam"](parameters_with([torch.full((3, 2), 4.0)]))
    training = last_to_change(adam)
    ClipGradNorm(1.0).apply([], training)
    SkipStep().apply(NONFINITE, training)
    assert not training.finish()
    assert not hasattr(adam, "grad_scale")


def test_two_clips_multiply() -> None:
    parameters = parameters_with([torch.full((3, 2), 4.0)])
    adam = FUSED["Adam"](parameters)
    training = last_to_change(adam)
    for limit in (2.0, 0.5):
        ClipGradNorm(limit).apply([], training)
    assert training.finish()
    adam.step()
    assert reference_norm(parameters) == pytest.approx(0.5, rel=1e-5)


def test_a_step_that_is_not_made_leaves_nothing_to_the_next() -> None:
    net = nn.Linear(2, 1)
    adam = FUSED["Adam"](net.parameters())
    engine = Engine(Settings(), [], [ClipGradNorm(0.1)], [])
    engine.start(net, [adam], RunInfo(), Hands())
    for step in range(2):
        net.zero_grad()
        net(torch.ones(1, 2)).sum().backward()
        engine.before_step(StepContext(step=step, optimizer=adam))
        assert float(adam.grad_scale) == pytest.approx(3**0.5 / 0.1)
    engine.stop()
    assert not hasattr(adam, "grad_scale")


def test_a_user_who_steps_himself_may_clip_there(tmp_path: Path) -> None:
    class Clips(Net):
        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:
            closure()
            nn.utils.clip_grad_norm_(self.parameters(), 0.2)
            optimizer.step()

    spy, _, _, _ = fit(tmp_path, [ClipGradNorm(0.5)], make=FUSED["Adam"], kind=Clips)
    assert spy.used == pytest.approx([0.2] * 8, rel=1e-4)
