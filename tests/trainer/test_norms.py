"""Recorded norms equal a float64 reference in every mode of training that Lightning has."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_gradwatch import GradWatch
from tests.trainer.models import (
    data,
    fit,
    float64_norms,
    lightning,
    mlp,
    regression,
    scaler_plugin,
)

pytestmark = pytest.mark.usefixtures("each_reader")


def quiet(**arguments) -> GradWatch:
    return GradWatch(reporters=[], **arguments)


def assert_equals_truth(watch: GradWatch, truth: list[dict[str, float]], rel: float = 1e-5) -> None:
    history = watch.history
    assert len(history) == len(truth) > 0
    for t, expected in enumerate(truth):
        got = dict(zip(history.parameters, history.grad_norm[t], strict=True))
        has = dict(zip(history.parameters, history.has_grad[t], strict=True))
        assert {n for n, h in has.items() if h} == set(expected)
        for name, value in expected.items():
            assert got[name] == pytest.approx(value, rel=rel, nan_ok=True), (t, name)
        total = math.sqrt(sum(v * v for v in expected.values()))
        assert history.global_norm[t] == pytest.approx(total, rel=rel, nan_ok=True)


def test_nan_and_inf_gradients():
    class Poison(nn.Module):
        def forward(self, x):
            if self.training and x[0, 0] > 0.6:
                return x / (x - x)
            return x

    model = regression(nn.Sequential(nn.Linear(8, 4), Poison(), nn.Linear(4, 1)))
    watch = quiet()
    fit(model, watch)
    assert_equals_truth(watch, model.truth)


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_plain_and_accumulated(accumulate):
    model, watch = regression(), quiet()
    fit(model, watch, accumulate_grad_batches=accumulate, max_epochs=2)
    assert_equals_truth(watch, model.truth)
    if accumulate == 1:
        assert watch.history.steps.tolist() == list(range(10))


def test_short_last_window_is_told():
    seen = []

    class Keep:
        def update(self, sample):
            seen.append(sample.accumulated)
            return ()

    fit(regression(), quiet(detectors=[Keep()]), accumulate_grad_batches=2)
    assert seen == [1.0, 1.0, 0.5]


def test_loss_is_that_of_the_user_under_accumulation():
    losses = []
    model = regression()
    step = model.training_step
    model.training_step = lambda *a: losses.append((loss := step(*a)).item()) or loss
    watch = quiet()
    fit(model, watch, accumulate_grad_batches=2)
    pairs = [losses[0:2], losses[2:4], losses[4:5]]
    assert watch.history.loss == pytest.approx([np.mean(p) for p in pairs], rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precisions(precision):
    if precision == "bf16-true" and lightning().__version__.startswith("2.0."):
        pytest.skip("true bfloat16 came with Lightning 2.1; the current release runs this")
    model, watch = regression(), quiet()
    model_loader = data()
    if precision == "64-true":
        net = model.net
        model.training_step = lambda batch, batch_idx: (
            (net(batch[0].double()) - batch[1].double()).square().mean()
        )
    fit(model, watch, precision=precision, loader=model_loader)
    assert_equals_truth(watch, model.truth)


@pytest.mark.parametrize("fused", [False, True])
def test_gradient_scaler(fused):
    model = regression(optimizer=lambda m: torch.optim.AdamW(m.parameters(), 1e-3, fused=fused))
    losses = []
    step = model.training_step
    model.training_step = lambda *a: losses.append((loss := step(*a)).item()) or loss
    watch = quiet()
    fit(model, watch, plugins=[scaler_plugin()])
    # A fused optimizer unscales inside its step: what the user's hook sees is still scaled.
    truth = [{k: v / (1024 if fused else 1) for k, v in row.items()} for row in model.truth]
    assert_equals_truth(watch, truth, rel=1e-4 if fused else 1e-5)
    assert watch.history.loss == pytest.approx(losses, rel=1e-3)
    assert watch.history.clipped_norm == pytest.approx(watch.history.global_norm, rel=1e-3)


@pytest.mark.parametrize("fused", [False, True])
def test_overflow_of_the_scaler_is_neither_a_step_nor_a_finding(fused):
    model = regression(optimizer=lambda m: torch.optim.AdamW(m.parameters(), 1e-3, fused=fused))
    watch = quiet()
    fit(model, watch, plugins=[scaler_plugin(2.0**24)], max_epochs=4)
    overflowed = ~np.isfinite(watch.history.global_norm)
    assert overflowed.any()
    assert not overflowed.all()
    assert np.isnan(watch.history.clipped_norm[overflowed]).all()
    assert watch.healthy


def test_manual_optimization_with_two_optimizers():
    base = lightning().LightningModule

    class Gan(base):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.generator, self.critic = mlp(8, 8, 8), mlp(8, 8, 1)
            self.truth = []
            self.losses = []

        def training_step(self, batch, batch_idx):
            g, d = self.optimizers()
            x = batch[0]
            loss_d = self.critic(self.generator(x)).mean() - self.critic(x).mean()
            d.zero_grad()
            self.manual_backward(loss_d)
            self.truth.append(float64_norms(self.critic))
            d.step()
            loss_g = -self.critic(self.generator(x)).mean()
            g.zero_grad()
            self.manual_backward(loss_g)
            self.truth.append(float64_norms(self.generator))
            g.step()
            self.losses += [loss_d.item(), loss_g.item()]

        def configure_optimizers(self):
            return [
                torch.optim.SGD(self.generator.parameters(), 0.01),
                torch.optim.Adam(self.critic.parameters(), 0.01),
            ]

    model, watch = Gan(), quiet()
    fit(model, watch)
    history = watch.history
    assert history.optimizer.tolist() == [1, 0] * 5
    assert history.steps.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    prefixes = ["critic.", "generator."] * 5
    truth = [{p + k: v for k, v in row.items()} for p, row in zip(prefixes, model.truth)]  # noqa: B905  # lengths are compared below
    assert_equals_truth(watch, truth)
    assert history.loss == pytest.approx(model.losses, rel=1e-5, abs=1e-7)


def test_lbfgs_is_one_row_a_step():
    model = regression(optimizer=lambda m: torch.optim.LBFGS(m.parameters(), max_iter=5))
    watch = quiet()
    trainer = fit(model, watch)
    assert len(watch.history) == trainer.global_step == 5
    assert np.isfinite(watch.history.loss).all()
    first = model.truth[0]
    got = dict(zip(watch.history.parameters, watch.history.grad_norm[0], strict=True))
    assert got == pytest.approx(first, rel=1e-5)


def test_training_step_that_returns_none_is_no_row():
    model = regression()
    step = model.training_step
    model.training_step = lambda batch, batch_idx: None if batch_idx % 2 else step(batch, batch_idx)
    watch = quiet()
    fit(model, watch)
    assert len(watch.history) == 3


def test_frozen_and_unfrozen_in_mid_run():
    model = regression()
    model.net[0].requires_grad_(False)
    callback = lightning().Callback

    class Unfreeze(callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 2:
                pl_module.net[0].requires_grad_(True)

    watch = quiet()
    fit(model, watch, Unfreeze())
    assert_equals_truth(watch, model.truth)
    assert watch.history.layers == ("net.0", "net.2", "net.4")
    assert watch.history.has_grad[:, 0].tolist() == [False, False, True, True, True]


def test_new_parameter_group_in_mid_run():
    model = regression(optimizer=lambda m: torch.optim.SGD(m.net[4].parameters(), 0.05))
    model.net[:4].requires_grad_(False)
    callback = lightning().Callback

    class Grow(callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 2:
                pl_module.net.requires_grad_(True)
                trainer.optimizers[0].add_param_group({"params": pl_module.net[:4].parameters()})

    watch = quiet()
    fit(model, watch, Grow())
    assert_equals_truth(watch, model.truth)


def test_tied_sparse_complex_empty_and_half():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(20, 8, sparse=True)
            self.first = nn.Linear(8, 8)
            self.second = nn.Linear(8, 8)
            self.second.weight = self.first.weight
            self.wave = nn.Parameter(torch.randn(8, 8, dtype=torch.complex64))
            self.empty = nn.Parameter(torch.zeros(0, 8))
            self.low = nn.Parameter(torch.randn(8, 1).half())

        def forward(self, x):
            ids = (x.abs() * 5).long().clamp(0, 19)[:, :4]
            x = self.embed(ids).mean(1) + x
            x = self.second(torch.tanh(self.first(x)))
            x = (x.to(torch.complex64) @ self.wave).abs() + self.empty.sum()
            return (x.half() @ self.low).float()

    def optimizer(module):
        return torch.optim.SGD(module.parameters(), 1e-3)

    model, watch = regression(Odd(), optimizer), quiet()
    fit(model, watch)
    assert_equals_truth(watch, model.truth)
    assert "net.first.weight" in watch.history.parameters
    assert "net.second.weight" not in watch.history.parameters


def test_gradients_from_1e_minus_30_to_1e30():
    class Scale(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 1))
            self.factor = factor

        def forward(self, x):
            weight = self.weight.double()
            return (x.double() @ (weight * self.factor)).float()

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(Scale(f) for f in (1e-30, 1e-20, 1.0, 1e20, 1e30))

        def forward(self, x):
            return sum(p(x) / p.factor.__abs__() ** 0.5 for p in self.parts)

    model = regression(Sum(), lambda m: torch.optim.SGD(m.parameters(), 0.0))
    watch = quiet()
    step = model.training_step
    model.training_step = lambda batch, batch_idx: step(batch, batch_idx) * 1e-10
    fit(model, watch)
    assert_equals_truth(watch, model.truth)


@pytest.mark.parametrize("norm_type", [1.0, 3.0, "inf"])
def test_other_norms(norm_type):
    model, watch = regression(), quiet(norm_type=norm_type)
    seen = []
    model.on_before_optimizer_step = lambda optimizer: seen.append(
        [float(p.grad.double().norm(float(norm_type))) for p in model.parameters()]
    )
    fit(model, watch)
    assert watch.history.grad_norm == pytest.approx(np.array(seen), rel=1e-5)
    whole = np.linalg.norm(np.array(seen), ord=float(norm_type), axis=1)
    assert watch.history.global_norm == pytest.approx(whole, rel=1e-5)
    first = np.linalg.norm(np.array(seen)[:, :2], ord=float(norm_type), axis=1)
    assert watch.history.layer_grad_norm[:, 0] == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize("how", ["trainer", "module", "hook"])
def test_clipped_norm_is_what_the_optimizer_used(how):
    model, watch = regression(), quiet()
    used = []
    arguments = {}
    if how == "trainer":
        arguments["gradient_clip_val"] = 0.05
    elif how == "module":
        kind = type(model)
        kind.configure_gradient_clipping = lambda self, o, **_: nn.utils.clip_grad_value_(
            self.parameters(), 0.01
        )
    else:
        kind = type(model)
        kind.on_before_optimizer_step = lambda self, o: [p.grad.mul_(3) for p in self.parameters()]

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            loss = closure()
            used.append(math.hypot(*(float(p.grad.norm()) for p in model.parameters())))
            super().step()
            return loss

    model.configure_optimizers = lambda: Spy(model.parameters(), lr=0.05)
    fit(model, watch, **arguments)
    assert watch.history.clipped_norm == pytest.approx(used, rel=1e-5)
    assert (np.abs(watch.history.global_norm - used) > 1e-3).all()


def test_every_n_steps():
    watch = quiet(every_n_steps=3)
    fit(regression(), watch, max_epochs=2)
    assert watch.history.steps.tolist() == [0, 3, 6, 9]


def test_include_and_exclude_leave_the_global_norm_whole():
    model, watch = regression(), quiet(include=["net.*"], exclude=["net.2"])
    fit(model, watch)
    assert watch.history.layers == ("net.0", "net.4")
    total = [math.sqrt(sum(v * v for v in row.values())) for row in model.truth]
    assert watch.history.global_norm == pytest.approx(total, rel=1e-5)


def test_layers_come_in_order_of_execution():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(8, 1)
            self.scale = nn.Parameter(torch.ones(8))
            self.first = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))

        def forward(self, x):
            return self.last(self.first(x) * self.scale)

    model, watch = regression(Backwards()), quiet()
    fit(model, watch)
    assert watch.history.layers == ("net", "net.first", "net.last")
    assert watch.history.parameters[1:4] == (
        "net.first.bias",
        "net.first.parametrizations.weight.original0",
        "net.first.parametrizations.weight.original1",
    )


def test_update_ratio_equals_the_change_of_the_weights():
    model, watch = regression(), quiet()
    before = [p.detach().clone() for p in model.parameters()]
    fit(model, watch, max_steps=1)
    ratio = [
        float((p.detach() - b).norm() / b.norm())
        for p, b in zip(model.parameters(), before, strict=True)
    ]
    assert watch.history.update_ratio[0] == pytest.approx(ratio, rel=1e-4)
