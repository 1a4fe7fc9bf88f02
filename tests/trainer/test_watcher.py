"""`GradientWatcher` in a bare loop and under Fabric has the figures that the callback has."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn

from lightning_gradwatch import GradientWatcher, GradWatch, History
from lightning_gradwatch.actions import ClipGradNorm, DecayLR, SkipStep
from tests.trainer.models import data, fit, lightning, mlp, regression, scaler_plugin

EVERY = 4


def assert_same_history(ours: History, theirs: History, prefix: str = "net.") -> None:
    assert len(ours) == len(theirs) > 0
    assert [prefix + name for name in ours.parameters] == list(theirs.parameters)
    assert [prefix + name for name in ours.layers] == list(theirs.layers)
    for name in (
        "steps", "optimizer", "grad_norm", "has_grad", "layer_grad_norm", "global_norm",
        "clipped_norm", "loss", "lr", "update_ratio",
    ):  # fmt: skip
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    assert [step for step, _ in ours.flow] == [step for step, _ in theirs.flow]
    for (_, got), (_, wanted) in zip(ours.flow, theirs.flow, strict=True):
        assert [prefix + n for n in got.modules.names if n != "(root)"] == [
            n for n in wanted.modules.names if n != prefix[:-1]
        ]
        of = {prefix + n: v for n, v in zip(got.modules.names, got.modules.gain, strict=True)}
        for name, gain in zip(wanted.modules.names, wanted.modules.gain, strict=True):
            if name in of:
                np.testing.assert_array_equal(of[name], gain, err_msg=name)


def batches(epochs: int = 2) -> Iterator[Any]:
    for _ in range(epochs):
        yield from data(48)


def mean_square(net: Any, batch: Any) -> Any:
    return (net(batch[0]).float() - batch[1]).square().mean()


def pair(optimizer: Callable[[Any], Any], **trainer: Any) -> tuple[nn.Module, GradWatch]:
    """Train in Lightning; return the same network as it was before, and what was seen."""
    torch.manual_seed(0)
    net = mlp(8, 16, 16, 1)
    fresh = copy.deepcopy(net)
    watch = GradWatch(reporters=[], flow_every_n_steps=EVERY, actions=trainer.pop("actions", ()))
    fit(
        regression(net, lambda m: optimizer(m.parameters())), watch, loader=data(48),
        max_epochs=2, **trainer,
    )  # fmt: skip
    return fresh, watch


def sgd(parameters: Any) -> Any:
    return torch.optim.SGD(parameters, 0.05, momentum=0.9)


def adamw(parameters: Any) -> Any:
    return torch.optim.AdamW(parameters, 1e-2)


def fused(parameters: Any) -> Any:
    return torch.optim.AdamW(parameters, 1e-2, fused=True)


@pytest.mark.parametrize("optimizer", [sgd, adamw, fused])
def test_plain_loop(optimizer):
    net, watch = pair(optimizer)
    own = optimizer(net.parameters())
    with GradientWatcher(net, own, reporters=[], flow_every_n_steps=EVERY) as watcher:
        for batch in batches():
            own.zero_grad()
            loss = mean_square(net, batch)
            loss.backward()
            watcher.step(loss=loss)
            own.step()
    assert_same_history(watcher.history, watch.history)


def test_accumulation():
    net, watch = pair(sgd, accumulate_grad_batches=3)
    own = sgd(net.parameters())
    with GradientWatcher(net, own, reporters=[], flow_every_n_steps=EVERY) as watcher:
        losses: list[torch.Tensor] = []
        for batch in batches():
            loss = mean_square(net, batch) / 3
            loss.backward()
            losses.append(loss.detach())
            if len(losses) == 3:
                watcher.step(loss=sum(losses))
                own.step()
                own.zero_grad()
                losses.clear()
    # Lightning's loss is the mean of what each micro-batch gave: the same but for rounding.
    assert watcher.history.loss == pytest.approx(watch.history.loss, rel=1e-6)
    assert_same_but_loss(watcher.history, watch.history)


def assert_same_but_loss(ours: History, theirs: History) -> None:
    for name in ("steps", "grad_norm", "global_norm", "clipped_norm", "update_ratio"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    for (_, got), (_, wanted) in zip(ours.flow, theirs.flow, strict=True):
        shown = dict(zip(got.modules.names, got.modules.out_grad_norm, strict=True))
        for name, norm in zip(wanted.modules.names, wanted.modules.out_grad_norm, strict=True):
            assert shown.get(name.removeprefix("net."), norm) == pytest.approx(norm, rel=1e-6)


def test_bfloat16_autocast():
    net, watch = pair(adamw, precision="bf16-mixed")
    own = adamw(net.parameters())
    with GradientWatcher(net, own, reporters=[], flow_every_n_steps=EVERY) as watcher:
        for batch in batches():
            own.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = mean_square(net, batch)
            loss.backward()
            watcher.step(loss=loss)
            own.step()
    assert_same_history(watcher.history, watch.history)


@pytest.mark.parametrize("optimizer", [adamw, fused])
@pytest.mark.parametrize("unscaled", [True, False])
@pytest.mark.parametrize("scale", [1024.0, 2.0**24])
def test_gradient_scaler(optimizer, unscaled, scale):
    """With the larger scale the first steps overflow: they are made by nobody."""
    net, watch = pair(optimizer, plugins=[scaler_plugin(scale)])
    own = optimizer(net.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    with GradientWatcher(
        net, own, scaler=scaler, reporters=[], flow_every_n_steps=EVERY
    ) as watcher:
        for batch in batches():
            own.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = mean_square(net, batch)
            scaler.scale(loss).backward()
            if unscaled:
                scaler.unscale_(own)
            watcher.step(loss=loss)
            scaler.step(own)
            scaler.update()
    ours, theirs = watcher.history, watch.history
    assert np.isnan(ours.clipped_norm).any() == (scale > 1e6)
    for name in ("grad_norm", "global_norm", "clipped_norm", "loss", "update_ratio"):
        np.testing.assert_allclose(
            getattr(ours, name), getattr(theirs, name), rtol=1e-5, err_msg=name
        )
    assert watcher.healthy


def test_two_optimizers():
    base = lightning().LightningModule

    def losses(generator: Any, critic: Any, x: Any) -> tuple[Any, Any]:
        return critic(generator(x)).mean() - critic(x).mean(), lambda: -critic(generator(x)).mean()

    class Gan(base):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.net = nn.ModuleDict({"generator": mlp(8, 8, 8), "critic": mlp(8, 8, 1)})

        def training_step(self, batch: Any, batch_idx: int) -> None:
            g, d = self.optimizers()
            first, second = losses(self.net["generator"], self.net["critic"], batch[0])
            d.zero_grad()
            self.manual_backward(first)
            d.step()
            g.zero_grad()
            self.manual_backward(second())
            g.step()

        def configure_optimizers(self) -> Any:
            return [sgd(self.net["generator"].parameters()), adamw(self.net["critic"].parameters())]

    torch.manual_seed(0)
    model = Gan()
    net = copy.deepcopy(model.net)
    watch = GradWatch(reporters=[], flow_every_n_steps=EVERY)
    fit(model, watch)
    g, d = sgd(net["generator"].parameters()), adamw(net["critic"].parameters())
    with GradientWatcher(net, [g, d], reporters=[], flow_every_n_steps=EVERY) as watcher:
        for step, (x, _) in enumerate(data()):
            first, second = losses(net["generator"], net["critic"], x)
            d.zero_grad()
            first.backward()
            watcher.step(loss=first, optimizer=d, step=step)
            d.step()
            g.zero_grad()
            loss = second()
            loss.backward()
            watcher.step(loss=loss, optimizer=g, step=step)
            g.step()
    ours, theirs = watcher.history, watch.history
    assert ours.optimizer.tolist() == [1, 0] * 5
    for name in ("steps", "optimizer", "grad_norm", "has_grad", "global_norm", "clipped_norm",
                 "loss", "lr", "update_ratio"):  # fmt: skip
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    for (_, got), (_, wanted) in zip(ours.flow, theirs.flow, strict=True):
        shown = dict(zip(got.modules.names, got.modules.out_grad_norm, strict=True))
        expected = dict(zip(wanted.modules.names, wanted.modules.out_grad_norm, strict=True))
        assert {f"net.{name}" for name in shown} == set(expected)
        for name, norm in shown.items():
            assert norm == pytest.approx(expected[f"net.{name}"], rel=1e-6), name


def test_actions():
    actions = [SkipStep(), ClipGradNorm(0.1), DecayLR(on=("nonfinite",), cooldown=0)]
    net, watch = pair(adamw, actions=actions)
    own = adamw(net.parameters())
    arguments: Any = {"reporters": [], "flow_every_n_steps": EVERY}
    with GradientWatcher(net, own, actions=copy.deepcopy(actions), **arguments) as watcher:
        for batch in batches():
            own.zero_grad()
            loss = mean_square(net, batch)
            loss.backward()
            watcher.step(loss=loss)
            own.step()
    assert_same_history(watcher.history, watch.history)
    assert watcher.actions_taken == watch.actions_taken
    assert len(watcher.actions_taken) == 12


# ---------------------------------------------------------------------- Fabric


def fabric_run(net: Any, optimizer: Any, clip: bool = False, **arguments: Any) -> Any:
    fabric = Fabric(accelerator="cpu", devices=1, **arguments)
    model, own = fabric.setup(net, optimizer(net.parameters()))
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    with GradientWatcher(
        model, own, scaler=scaler, reporters=[], flow_every_n_steps=EVERY
    ) as watcher:
        for batch in batches():
            own.zero_grad()
            loss = mean_square(model, batch)
            fabric.backward(loss)
            if clip:  # unscales
                fabric.clip_gradients(model, own, max_norm=1e6)
            watcher.step(loss=loss, optimizer=own)
            own.step()
    return watcher


@pytest.mark.parametrize("optimizer", [sgd, fused])
def test_fabric(optimizer):
    net, watch = pair(optimizer)
    assert_same_history(fabric_run(net, optimizer).history, watch.history)


def test_fabric_in_bfloat16():
    net, watch = pair(adamw, precision="bf16-mixed")
    assert_same_history(fabric_run(net, adamw, precision="bf16-mixed").history, watch.history)


@pytest.mark.parametrize("clip", [False, True])
def test_fabric_with_a_scaler(clip):
    net, watch = pair(adamw, plugins=[scaler_plugin()])
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    watcher = fabric_run(net, adamw, clip, plugins=[plugin])
    for name in ("grad_norm", "global_norm", "clipped_norm", "loss", "update_ratio"):
        ours, theirs = getattr(watcher.history, name), getattr(watch.history, name)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, err_msg=name)


def test_nan_under_fabric_is_told_and_changes_nothing_else():
    net, _ = pair(sgd)
    fabric = Fabric(accelerator="cpu", devices=1)
    model, own = fabric.setup(net, sgd(net.parameters()))
    with (
        warnings.catch_warnings(),
        GradientWatcher(model, own, reporters=[], actions=[SkipStep()]) as watcher,
    ):
        warnings.simplefilter("error")
        for i, batch in enumerate(batches(1)):
            own.zero_grad()
            loss = mean_square(model, batch) * (math.nan if i == 2 else 1.0)
            fabric.backward(loss)
            watcher.step(loss=loss)
            own.step()
    assert [r.step for r in watcher.actions_taken] == [2]
    assert all(torch.isfinite(p).all() for p in net.parameters())
    assert np.isnan(watcher.history.clipped_norm[2])
