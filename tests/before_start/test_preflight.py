"""Before training: ill ones are told, healthy ones are left in peace, and no trace remains."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_gradwatch import Severity, preflight
from tests.before_start.models import (
    HEALTHY,
    SICK,
    OwnLoss,
    Sequence,
    Unused,
    deep,
    mse,
    numbers,
    series,
    tokens,
)  # fmt: skip
from tests.culprit.test_undisturbed import Hoarder, everything, same
from tests.trainer.models import lightning


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_beginnings(name, seed):
    torch.manual_seed(seed)
    report = preflight(*HEALTHY[name]())
    assert [f for f in report.findings if f.severity >= Severity.WARNING] == []
    assert report.verdict.startswith("healthy")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SICK)
def test_sick_beginnings(name, seed):
    torch.manual_seed(seed)
    make, code = SICK[name]
    report = preflight(*make())
    found = {f.code: f for f in report.findings if f.severity >= Severity.WARNING}
    assert code in found
    assert (found[code].first_step, found[code].last_step, found[code].count) == (0, 0, 1) or (
        found[code].count >= 1
    )
    assert not {"stalled", "oscillating", "spike"} & {f.code for f in report.findings}
    assert "before the first step" in str(report)


def test_parameters_without_a_gradient_are_a_note():
    report = preflight(Unused(), numbers(), mse)
    [found] = report.findings
    assert (found.code, found.severity, found.layers) == ("no_gradient", Severity.INFO, ("old",))
    assert (
        found.summary == "old.weight and old.bias have had no gradient in 4 passes over one batch."
    )


def test_culprit_of_a_nan_is_named():
    torch.manual_seed(0)
    make, _ = SICK["nan in the batch"]
    [found] = preflight(*make()).findings
    assert found.summary.startswith("The batch holds NaN: batch[0] (1 of 1,024 values)")


def test_forgetful_recurrence():
    torch.manual_seed(0)
    ill = preflight(Sequence(nn.RNN(4, 16, batch_first=True)), series(200), mse)
    [found] = ill.findings
    assert (found.code, found.layers, found.severity) == ("vanishing", ("rnn",), Severity.WARNING)
    assert "recurrent weights" in found.cause
    young = preflight(Sequence(nn.LSTM(4, 16, 2, batch_first=True)), series(32), mse)
    assert young.healthy
    assert "many recurrent networks learn to remember" in young.findings[0].summary


def test_nothing_is_left_behind():
    module = Hoarder().eval()
    module.net[0].weight.grad = torch.ones(4, 4)
    x = torch.randn(8, 4)
    before = everything(module)
    preflight(module, x)
    after = everything(module)
    for key in before:
        assert same(before[key], after[key]), key
    net = deep(nn.ReLU, 3)
    twin = copy.deepcopy(net)
    preflight(net, numbers(), mse)
    assert all(map(torch.equal, net.state_dict().values(), twin.state_dict().values()))
    assert all(p.grad is None for p in net.parameters())
    assert len(pickle.dumps(net)) == len(pickle.dumps(twin))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_also_with_zeros_opened():
    torch.manual_seed(0)
    net, batch, loss = HEALTHY["zero head"]()
    preflight(net, batch, loss)
    assert not net[-1].weight.any()


def test_the_batch_is_left_alone():
    x, y = numbers()
    kept = x.clone()

    class Rude(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(32, 1)

        def forward(self, x):
            return self.net(x.mul_(2))

    preflight(Rude(), (x, y), mse)
    assert torch.equal(x, kept)


def test_training_mode_is_used_and_restored():
    net = nn.Sequential(nn.Linear(32, 8), nn.Dropout(0.5), nn.Linear(8, 1)).eval()
    modes = []
    net[1].register_forward_hook(lambda m, *_: modes.append(m.training))
    preflight(net, numbers(), mse)
    assert set(modes) == {True}
    assert not net[1].training


class Logs(lightning().LightningModule):
    def __init__(self, manual=False):
        super().__init__()
        self.net = deep(nn.Sigmoid, 30)
        self.automatic_optimization = not manual

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = mse(self.net(x), y)
        self.log("loss", loss, prog_bar=True)
        self.log_dict({"other": loss})
        return {"loss": loss}


def test_lightning_module_without_a_trainer():
    model = Logs()
    report = preflight(model, numbers())
    assert report.verdict == "vanishing gradients"
    assert "log" not in vars(model)
    with pytest.raises(ValueError, match="manual optimization"):
        preflight(Logs(manual=True), numbers())
    assert not preflight(Logs(manual=True).net, numbers(), mse).healthy


def test_ways_to_a_loss():
    assert preflight(OwnLoss(), tokens()).healthy
    net = nn.Linear(32, 32)
    assert preflight(net, torch.randn(8, 32), mse).healthy  # an autoencoder
    assert preflight(net, torch.randn(8, 32), lambda out: out.square().mean()).healthy
    x, y = numbers()
    assert preflight(nn.Linear(32, 1), {"input": x, "target": y}, mse).healthy
    assert preflight(nn.Bilinear(32, 32, 1), (x, x, y), mse).healthy


@pytest.mark.parametrize(
    ("model", "batch", "loss", "error", "words"),
    [
        (nn.Linear(2, 2), torch.ones(3, 2), None, ValueError, r"pass loss_fn.*shape \(3, 2\)"),
        (nn.Linear(2, 2), (torch.ones(3, 2),), F.l1_loss, ValueError, None),
        ("net", torch.ones(1), None, TypeError, "must be a torch.nn.Module, got str"),
        (nn.Linear(2, 2), torch.ones(1), 3, TypeError, "callable, got 3"),
        (nn.LazyLinear(2), numbers(), mse, ValueError, "lazy"),
        (nn.Linear(32, 1).requires_grad_(False), numbers(), mse, ValueError, "depend on any"),
    ],
)
def test_errors_say_what_to_pass(model, batch, loss, error, words):
    if words is None:  # one tensor in a tuple is its own target
        preflight(model, batch, lambda out, _: out.sum())
        return
    with pytest.raises(error, match=words):
        preflight(model, batch, loss)


def test_hooks_that_step_do_not_see_the_gradient():
    net, stepped = nn.Linear(32, 1), []
    for parameter in net.parameters():
        parameter.register_post_accumulate_grad_hook(stepped.append)
    preflight(net, numbers(), mse)
    assert stepped == []
