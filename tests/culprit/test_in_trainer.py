"""In a Trainer: the culprit stands in the finding, and the run is as if nobody had looked."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from lightning_gradwatch import GradientWatcher, GradWatch
from lightning_gradwatch.actions import SkipStep
from tests.trainer.models import NAMESPACES, data, fit, lightning, mlp, scaler_plugin


def trainable(loss_of, net=None, name="pytorch_lightning", **fields):
    """A module with dropout, BatchNorm, a metric, an own list, and one bad step."""
    torchmetrics = pytest.importorskip("torchmetrics")

    class Module(lightning(name).LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net or nn.Sequential(
                nn.Linear(8, 16), nn.Dropout(0.3), nn.BatchNorm1d(16), nn.Linear(16, 1)
            )
            self.metric = torchmetrics.MeanMetric()
            self.losses, self.calls = [], 0

        def training_step(self, batch, batch_idx):
            self.calls += 1
            loss = loss_of(self, batch, batch_idx)
            self.losses.append(loss.detach())
            self.metric(loss.detach().nan_to_num(0, 0, 0))
            self.log("metric", self.metric, on_step=True, on_epoch=True)
            self.log("loss", loss, on_step=True, on_epoch=True)
            if self.logger is not None:
                self.logger.experiment.add_scalar("own", self.calls, self.calls)
            return loss

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 0.01)

    module = Module()
    for key, value in fields.items():
        setattr(module, key, value)
    return module


def plain(self, batch, batch_idx):
    return (self.net(batch[0]) - batch[1]).square().mean()


def log_of_zero(self, batch, batch_idx):
    loss = plain(self, batch, batch_idx)
    return loss + torch.log(loss * 0) if batch_idx == 3 else loss


def infinite_loss(self, batch, batch_idx):
    """Inf in the loss, finite gradients: training goes on, so that a difference would show."""
    loss = plain(self, batch, batch_idx)
    return loss + torch.zeros(1).reciprocal().squeeze() if batch_idx in (1, 3) else loss


@pytest.mark.parametrize("accumulate", [1, 2])
def test_run_is_bit_identical(tmp_path, accumulate):
    loggers = pytest.importorskip("pytorch_lightning.loggers")
    results = []
    for watch in (None, GradWatch(reporters=[])):
        lightning().seed_everything(3)
        model = trainable(infinite_loss)
        logger = loggers.TensorBoardLogger(tmp_path / str(watch is None))
        written = []
        logger.experiment.add_scalar = lambda *a, written=written, **k: written.append(str(a))
        trainer = fit(
            model, *([] if watch is None else [watch]), max_epochs=2, logger=logger,
            log_every_n_steps=1, accumulate_grad_batches=accumulate,
        )  # fmt: skip
        results.append(
            {
                "weights": {k: v.clone() for k, v in model.state_dict().items()},
                "rng": torch.get_rng_state(),
                "metrics": {k: str(v) for k, v in trainer.callback_metrics.items()},
                "written": [w for w in written if "own" in w],
                "losses": str(model.losses),
                "calls": model.calls,
                "attributes": sorted(vars(model)),
            }
        )
        if watch is not None:
            [found] = [f for f in watch.findings if f.code == "nonfinite"]
            assert found.evidence["reproduced"] == 1
            assert found.evidence["batch_idx"] == 1
            assert "division by 0" in found.summary
    without, with_watch = results
    for name, weight in without.pop("weights").items():
        assert torch.equal(weight, with_watch["weights"][name]), name
    assert torch.equal(without.pop("rng"), with_watch["rng"])
    for key, value in without.items():
        assert value == with_watch[key], key


@pytest.mark.parametrize("name", NAMESPACES)
def test_culprit_is_in_the_finding(name):
    pytest.importorskip(name)  # CI has both
    watch = GradWatch(reporters=[])
    fit(trainable(log_of_zero, name=name), watch, name=name)
    [found] = [f for f in watch.findings if f.code == "nonfinite"]
    assert found.summary.startswith(
        "The loss turned a finite model output into Inf in the forward pass at step 3, batch 3: "
        "the log of 0 (test_in_trainer.py:"
    )
    assert found.remedies[0].startswith("Keep the argument of log away from 0")
    assert found.evidence["in_forward"] == 1


def test_dropout_draws_the_same_numbers_again():
    """NaN only for one mask of dropout: the replay draws that mask."""

    def unlucky(self, batch, batch_idx):
        h = self.net(batch[0])
        return h.mean() / (nn.functional.dropout(torch.ones(4), 0.5).sum() > 0)

    torch.manual_seed(0)
    watch = GradWatch(reporters=[])
    fit(trainable(unlucky), watch, loader=data(400))
    [found] = [f for f in watch.findings if f.code == "nonfinite"]
    assert found.evidence["reproduced"] == 1
    assert "division by 0" in found.summary


def test_bad_batch_and_its_part_under_accumulation():
    loader = data()
    loader.dataset.tensors[1][17] = math.inf  # batch 2, its window ends with batch 3
    watch = GradWatch(reporters=[], actions=[SkipStep()])
    fit(trainable(plain), watch, loader=loader, accumulate_grad_batches=2)
    [found] = [f for f in watch.findings if f.code == "nonfinite"]
    assert found.summary == "The batch holds Inf: batch[1] (1 of 8 values), at step 1, batch 2."
    assert found.evidence["batch_idx"] == 2
    assert found.remedies[0] == (
        "Clean the data, and let the dataset say so: assert torch.isfinite(x).all()."
    )
    assert not watch._window.kept


def test_half_precision_overflow():
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1))
    with torch.no_grad():
        net[1].weight.fill_(3e4)
        net[0].bias.fill_(10.0)
    watch = GradWatch(reporters=[])
    fit(trainable(plain, net), watch, plugins=[scaler_plugin()])
    [found] = [f for f in watch.findings if f.code == "nonfinite"]
    assert found.layers == ("net.1",)
    assert "out of the range of float16 (up to 65,504)" in found.summary
    assert "bf16" in found.remedies[0]


def test_weights_broken_since_an_earlier_step():
    watch = GradWatch(reporters=[])

    class Breaks(lightning().Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 2:
                with torch.no_grad():
                    pl_module.net[0].weight[0, 0] = math.nan

    fit(trainable(plain), Breaks(), watch)
    [found] = [f for f in watch.findings if f.code == "nonfinite"]
    assert found.layers == ("net.0",)
    assert found.summary == (
        "net.0.weight held NaN (1 of 128 values) before step 2 began: the loss was last finite at "
        "step 1."
    )


def test_manual_optimization_is_not_replayed_but_looked_at():
    def manual(self, batch, batch_idx):
        loss = plain(self, batch, batch_idx)
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss

    loader = data()
    loader.dataset.tensors[0][17] = math.nan
    model = trainable(manual, automatic_optimization=False)
    watch = GradWatch(reporters=[])
    fit(model, watch, loader=loader)
    assert model.calls == 5
    [found] = [f for f in watch.findings if f.code == "nonfinite"]
    assert found.summary == (
        "The batch holds NaN: batch[0] (8 of 64 values), at step 2, batch 2 (not replayed: under "
        "manual optimization training_step would step)."
    )
    assert (found.evidence["replayed"], found.evidence["reproduced"]) == (0, 0)


def test_compiled_models_are_not_replayed():
    model = trainable(log_of_zero, net=torch.compile(mlp(8, 4, 1), backend="eager"))
    watch = GradWatch(reporters=[])
    fit(model, watch)
    [found] = [f for f in watch.findings if f.code == "nonfinite"]
    assert model.calls == 5
    assert found.summary.endswith("Not replayed: the model is compiled.")


def test_error_in_the_replay_is_said_and_training_goes_on():
    def once(self, batch, batch_idx):
        if self.calls > 4:
            raise RuntimeError("no second time")
        return log_of_zero(self, batch, batch_idx)

    watch = GradWatch(reporters=[])
    fit(trainable(once), watch, limit_train_batches=4)
    [found] = [f for f in watch.findings if f.code == "nonfinite"]
    assert found.summary.endswith("Not replayed: no second time.")
    assert watch._engine.guard.works("the replay")


def test_three_attempts_at_most():
    calls = []

    def only_the_first_time(self, batch, batch_idx):
        calls.append(batch_idx)
        loss = plain(self, batch, batch_idx)
        return loss if calls.count(batch_idx) > 1 else loss * math.nan

    watch = GradWatch(reporters=[], actions=[SkipStep()])
    fit(trainable(only_the_first_time), watch)
    assert len(calls) == 5 + 3
    [found] = [f for f in watch.findings if f.code == "nonfinite"]
    assert found.evidence["reproduced"] == 0
    assert "Replayed, batch 0 gives finite numbers only." in found.summary
    assert "did not come back" in found.cause


def test_weights_broken_by_a_step_that_did_not_come_back_are_not_to_blame():
    calls = []

    def only_the_first_time(self, batch, batch_idx):
        calls.append(batch_idx)
        loss = plain(self, batch, batch_idx)
        return loss * math.nan if batch_idx == 2 and calls.count(2) == 1 else loss

    watch = GradWatch(reporters=[])
    fit(trainable(only_the_first_time), watch)
    [found] = [f for f in watch.findings if f.code == "nonfinite"]
    assert found.first_step == 2
    assert "Replayed, batch 2 gives finite numbers only." in found.summary
    assert "did not come back" in found.cause


def test_batches_are_neither_kept_nor_copied_with_the_callback():
    watch = GradWatch(reporters=[])

    class Copies(lightning().Callback):
        def on_after_backward(self, trainer, pl_module):
            assert len(watch._window.kept) == 1
            assert not copy.deepcopy(watch)._window.kept
            assert not pickle.loads(pickle.dumps(watch))._window.kept

    fit(trainable(plain), Copies(), watch)
    assert not watch._window.kept


def test_bare_loop_with_a_closure():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.Softplus(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with GradientWatcher(net, optimizer, reporters=[]) as watcher:
        for i in range(3):
            x = torch.randn(8, 4)

            def forward(x=x, i=i):
                out = net(x)
                return (out - out if i == 2 else out).square().sum().sqrt()

            loss = forward()
            optimizer.zero_grad()
            loss.backward()
            watcher.step(loss=loss, replay=forward)
    [found] = watcher.findings
    assert "derivative of sqrt at 0" in found.summary
    assert found.evidence["reproduced"] == 1
