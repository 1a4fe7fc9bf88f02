"""The flow probe inside a Trainer: it changes nothing, and its numbers are those of autograd."""

from __future__ import annotations

import contextlib
import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lightning_gradwatch import GradientWatcher, GradWatch
from lightning_gradwatch.errors import GradWatchWarning
from tests.probe.flows import norm, row
from tests.trainer.models import data, fit, lightning, mlp, regression, scaler_plugin


class Everything(nn.Module):
    """In-place, functional, reused, normalised, dropped out, checkpointed, attended, recurrent."""

    def __init__(self) -> None:
        super().__init__()
        self.inlet = nn.Linear(8, 16)
        self.norm = nn.BatchNorm1d(16)
        self.act = nn.ReLU(inplace=True)
        self.body = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Dropout(0.3))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.cell = nn.LSTMCell(4, 4)
        self.head = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.act(self.norm(self.inlet(x)))
        for reentrant in (False, True):
            h = h + checkpoint(self.body, h, use_reentrant=reentrant)
        h = functional.dropout(functional.relu(h), 0.2, self.training)
        h += 1
        steps, state = h.view(-1, 4, 4), None
        steps = self.attention(steps, steps, steps)[0]
        for t in range(4):
            state = self.cell(steps[:, t], state)
        return self.head(state[0])


def trained(watched: bool, net: nn.Module, **trainer: Any) -> tuple[dict[str, Any], torch.Tensor]:
    lightning().seed_everything(3)
    if trainer.pop("amp", False):
        trainer["plugins"] = scaler_plugin()
    model = regression(copy.deepcopy(net), lambda m: torch.optim.Adam(m.parameters(), 0.01))
    watch = GradWatch(flow_every_n_steps=1, reporters=[])
    quiet = warnings.catch_warnings() if watched else contextlib.nullcontext()
    with quiet:
        if watched:
            warnings.simplefilter("error", GradWatchWarning)
        fit(model, *([watch] if watched else []), max_epochs=3, **trainer)
    if watched:
        assert len(watch.history.flow) == len(watch.history) > 0
        assert all(flow.modules is not None for _, flow in watch.history.flow)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    return model.state_dict(), torch.get_rng_state()


@pytest.mark.parametrize(
    "trainer",
    [
        {},
        {"accumulate_grad_batches": 2},
        {"gradient_clip_val": 0.1},
        {"amp": True},
        {"precision": "bf16-mixed"},
        {"precision": "64-true"},
    ],
    ids=lambda t: "+".join(t) or "plain",
)
def test_run_is_bit_identical_with_flow_on_every_step(trainer):
    net = Everything()
    with_flow, without = trained(True, net, **trainer), trained(False, net, **trainer)
    for name, value in without[0].items():
        assert torch.equal(value, with_flow[0][name]), name
    assert torch.equal(with_flow[1], without[1])


def of_large_batch(net: nn.Module, loader: Any, batches: int) -> dict[str, float]:
    """Norms at the outputs when the first batches come as one, from plain autograd."""
    pairs = [pair for pair, _ in zip(loader, range(batches), strict=False)]
    x, y = (torch.cat(parts).double() for parts in zip(*pairs, strict=True))
    net = copy.deepcopy(net).double()
    outs = {}
    for name, module in net.named_children():
        x = module(x)
        x.retain_grad()
        outs[f"net.{name}"] = x
    (x - y).square().mean().backward()
    return {name: norm(out.grad) for name, out in outs.items()}


def first_flow(net: nn.Module, **trainer: Any) -> Any:
    watch = GradWatch(reporters=[])
    fit(regression(net, lambda m: torch.optim.SGD(m.parameters(), 0.0)), watch, **trainer)
    return watch.history


@pytest.mark.parametrize(
    ("trainer", "batches"),
    [
        ({}, 1),
        ({"accumulate_grad_batches": 4}, 4),
        ({"plugins": "amp"}, 1),
        ({"plugins": "amp", "accumulate_grad_batches": 2}, 2),
    ],
    ids=["plain", "accumulated", "scaled", "both"],
)
def test_norms_are_those_of_one_large_batch_without_loss_scale(trainer, batches):
    net = mlp(8, 16, 16, 1)
    wanted = of_large_batch(net, data(), batches)
    if "plugins" in trainer:
        trainer = trainer | {"plugins": scaler_plugin(64.0)}
    flow = first_flow(copy.deepcopy(net), **trainer).flow[0][1]
    tolerance = 0.03 if "plugins" in trainer else 1e-5  # activations in half precision
    for name, value in wanted.items():
        assert row(flow, name)["out_grad_norm"] == pytest.approx(value, rel=tolerance), name


def test_short_last_window_of_an_epoch_is_measured_as_if_it_were_whole():
    """Five batches in windows of four: the fifth stands alone, its loss divided by four."""
    net = mlp(8, 16, 1)
    history = first_flow(copy.deepcopy(net), accumulate_grad_batches=4)
    last = list(data())[-1:]
    for name, value in of_large_batch(net, last, 1).items():
        assert row(history.flow[1][1], name)["out_grad_norm"] == pytest.approx(value, rel=1e-5)


def test_overflow_under_a_scaler_is_seen_and_harmless():
    watch = GradWatch(reporters=[])
    fit(regression(mlp(8, 8, 1)), watch, plugins=scaler_plugin(2.0**30), max_epochs=2)
    flows = [flow for _, flow in watch.history.flow]
    assert not np.isfinite(flows[0].modules.out_grad_norm).all()
    assert np.nanmax(flows[0].modules.nonfinite_fraction) == 0
    assert len(watch.history.flow) == 10


class Adversaries(lightning().LightningModule):  # type: ignore[misc]
    """One forward pass of the generator serves both steps, as GANs do it; with a penalty."""

    def __init__(self, announce: bool) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.announce = announce
        self.g, self.d = mlp(8, 8, 8), mlp(8, 8, 1)
        self.truth: list[dict[str, float]] = []

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizers = dict(zip("gd", self.optimizers(), strict=True))
        fake = self.g(batch[0])
        fake.retain_grad()
        real = batch[0].requires_grad_()
        scores = self.d(real)
        (slope,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
        torch.autograd.grad(scores.sum(), real, retain_graph=True)
        verdict = self.d(fake.detach())
        self._step(optimizers["d"], verdict.mean() - scores.mean() + slope.square().mean())
        judged = self.d(fake)
        self._step(optimizers["g"], -judged.mean())
        self.truth.append({"g": norm(fake.grad), "d": len(batch[0]) ** -0.5})

    def _step(self, optimizer: Any, loss: torch.Tensor) -> None:
        self.zero_grad()
        if self.announce:
            self.manual_backward(loss)
        else:
            loss.backward()
        optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(n.parameters(), 0.01) for n in (self.g, self.d)]


@pytest.mark.parametrize("announce", [True, False], ids=["manual_backward", "backward"])
def test_manual_optimization_with_two_optimizers_and_a_gradient_penalty(announce):
    watch = GradWatch(reporters=[])
    model = Adversaries(announce)
    fit(model, watch)
    flows = [flow for _, flow in watch.history.flow]
    assert watch.history.optimizer.tolist() == [1, 0] * 5
    for truth, critic, generator in zip(model.truth, flows[::2], flows[1::2], strict=True):
        assert not any(name.startswith("g") for name in critic.modules.names)
        assert row(critic, "d")["calls"] == 2  # real and fake, and no penalty
        assert row(critic, "d")["out_grad_norm"] == pytest.approx(2**0.5 * truth["d"], rel=1e-5)
        assert row(generator, "g")["out_grad_norm"] == pytest.approx(truth["g"], rel=1e-5)
        assert row(generator, "d")["calls"] == 1
    assert not any(m._forward_hooks for m in model.modules())


def test_adversarial_examples_in_automatic_optimization_are_not_counted():
    model = regression(mlp(8, 8, 1))
    step = model.training_step

    def training_step(batch, batch_idx):
        x = batch[0].requires_grad_()
        model.net(x).sum().backward()  # a whole backward pass, and none of the optimizer's
        model.zero_grad()
        return step((x.detach() + 0.1 * x.grad.sign(), batch[1]), batch_idx)

    model.training_step = training_step
    watch = GradWatch(reporters=[])
    fit(model, watch)
    assert [row(flow, "net")["calls"] for _, flow in watch.history.flow] == [1] * 5


def test_cell_in_a_loop_has_one_time_profile_for_an_accumulation_window():
    net = Everything()
    watch = GradWatch(reporters=[])
    fit(regression(net), watch, accumulate_grad_batches=2)
    for _, flow in watch.history.flow:
        (profile,) = flow.time_profiles
        assert profile.module == "net.cell"
        assert profile.grad_norm.shape == (4,)
        assert (profile.grad_norm > 0).all()


def test_compiled_child_is_said_once_and_trains_as_without():
    """The compiled region stays whole, whether or not the steps around it are armed."""
    weights, graphs = [], []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    for watched in (False, True):
        torch._dynamo.reset()
        torch.manual_seed(0)
        inner = mlp(8, 8, 8)
        net = nn.Sequential(nn.Linear(8, 8), torch.compile(inner, backend=backend), nn.Linear(8, 1))
        watch = GradWatch(reporters=[], flow_every_n_steps=7)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            fit(regression(net), *([watch] if watched else []), max_epochs=4)
        weights.append(net.state_dict())
        ours = [str(w.message) for w in said if issubclass(w.category, GradWatchWarning)]
        assert len(ours) == watched
        assert len(graphs) == 1 + watched
    assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())
    assert "net.1" in ours[0]
    assert row(watch.history.flow[0][1], "net.1")["kinds"] == "Sequential"
    assert "net.1.0" not in watch.history.flow[0][1].modules.names


def test_compiled_model_keeps_parameter_norms_and_says_so():
    class Silent(lightning().LightningModule):  # `self.log` does not compile, with or without us
        def __init__(self):
            super().__init__()
            self.net = mlp(8, 8, 1)

        def training_step(self, batch, batch_idx):
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    watch = GradWatch(reporters=[])
    with pytest.warns(GradWatchWarning, match="the model itself"):
        fit(torch.compile(Silent(), backend="eager"), watch)
    assert len(watch.history) == 5
    assert watch.history.flow == []
    assert np.isfinite(watch.history.grad_norm).all()


def test_between_armed_steps_no_module_has_a_hook():
    hooked = []
    model = regression(mlp(8, 8, 1))
    step = model.training_step

    def training_step(batch, batch_idx):
        hooked.append(any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()))
        return step(batch, batch_idx)

    model.training_step = training_step
    fit(model, GradWatch(reporters=[], flow_every_n_steps=15), max_epochs=4)
    assert [i for i, on in enumerate(hooked) if on] == [*range(10), 15]


def test_validation_in_between_is_not_seen():
    model = regression(mlp(8, 8, 1))
    model.validation_step = lambda batch, batch_idx: model.net(batch[0])
    watch = GradWatch(reporters=[])
    trainer = lightning().Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[watch],
        val_check_interval=1,
    )  # fmt: skip
    trainer.fit(model, data(), data())
    assert [row(flow, "net")["calls"] for _, flow in watch.history.flow] == [1] * 5


def test_include_and_exclude_choose_the_modules_too():
    watch = GradWatch(reporters=[], include=["net.2*", "net.0.weight"], exclude=["net.2.bias"])
    fit(regression(mlp(8, 8, 1)), watch)
    assert watch.history.flow[0][1].modules.names == ("net.0", "net.2")


def test_bare_loop_sees_what_the_trainer_sees():
    torch.manual_seed(0)
    net = mlp(8, 8, 1)
    wanted = of_large_batch(net, data(), 1)
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    with GradientWatcher(net, sgd, reporters=[], detectors=[], flow_every_n_steps=20) as watcher:
        for _ in range(5):
            for x, y in data():
                sgd.zero_grad()
                out = net(x)
                torch.autograd.grad(out.sum(), net[2].weight, retain_graph=True)
                (out - y).square().mean().backward()
                watcher.step()
                sgd.step()
    assert [step for step, _ in watcher.history.flow] == [*range(10), 20]
    for name, value in wanted.items():
        first = watcher.history.flow[0][1]
        got = row(first, name.removeprefix("net."))
        assert got["out_grad_norm"] == pytest.approx(value, rel=1e-5)
        assert got["calls"] == 1
    assert not any(m._forward_hooks for m in net.modules())


def test_flow_can_be_turned_off():
    watch = GradWatch(reporters=[], flow_every_n_steps=0)
    fit(regression(mlp(8, 8, 1)), watch)
    assert watch.history.flow == []
    assert len(watch.history) == 5
