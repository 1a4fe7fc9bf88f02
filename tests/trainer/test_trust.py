"""Where `.grad` is not the gradient, no norm is reported; that is said once, and on it goes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn

from lightning_gradwatch import GradientWatcher, GradWatch, GradWatchWarning, Report
from lightning_gradwatch.actions import ClipGradNorm, DecayLR, SaveBatch, StopTraining
from lightning_gradwatch.errors import ConfigurationError
from lightning_gradwatch.lightning_trainer import TrainerView
from lightning_gradwatch.recording import read_recording
from tests.trainer.models import data, fit, mlp, regression


@contextmanager
def closing(watcher: GradientWatcher) -> Iterator[None]:
    """Leave a watcher that was entered where its warning is expected."""
    yield
    watcher.__exit__(None, None, None)


class DeepSpeedStrategy(SingleDeviceStrategy):
    """Has the name of the one that needs CUDA."""


class FSDPStrategy(SingleDeviceStrategy):
    """The same."""


def ours(caught: list[warnings.WarningMessage]) -> list[str]:
    return [str(w.message) for w in caught if issubclass(w.category, GradWatchWarning)]


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [(DeepSpeedStrategy, "DeepSpeed keeps gradients"), (FSDPStrategy, "FSDP1 keeps.*Use FSDP2")],
)
def test_no_norm_is_reported_which_is_said_once(tmp_path, strategy, reason):
    """Seventy steps: more than any detector waits before it speaks of missing gradients."""
    watch = GradWatch()
    logger = TensorBoardLogger(tmp_path, name="", version="")
    with pytest.warns(GradWatchWarning, match=f"no norms of gradients.*{reason}") as caught:
        trainer = fit(
            regression(), watch, max_epochs=14, strategy=strategy("cpu"), logger=logger,
            log_every_n_steps=5,
        )  # fmt: skip
    assert len(ours(list(caught))) == 1
    assert trainer.global_step == 70
    history = watch.history
    assert len(history) == 70
    assert history.parameters == ()
    assert np.isnan(history.global_norm).all()
    assert np.isfinite(history.loss).all()
    assert (history.lr == 0.05).all()
    assert history.flow[0][1].modules.names  # what modules show does not go through `.grad`
    assert watch.findings == ()
    recording = read_recording(tmp_path / "gradwatch")
    assert np.isfinite(recording.loss).all()
    report = Report.from_recording(recording)
    assert report.verdict == "gradients could not be read, so there is nothing to judge"
    assert "gradients not read: " in " ".join(report.to_text().split())
    json.dumps(report.to_dict(), allow_nan=False)
    assert report.to_html()


def test_training_is_the_same(tmp_path):
    weights = []
    for watches in ((), (GradWatch(reporters=[]),)):
        torch.manual_seed(0)
        model = regression()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit(model, *watches, strategy=FSDPStrategy("cpu"))
        weights.append([p.detach() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.parametrize("strategy", [FSDPStrategy, DeepSpeedStrategy])
@pytest.mark.parametrize("action", [ClipGradNorm(1.0), DecayLR()])
def test_actions_are_refused_when_the_fit_starts(strategy, action):
    watch = GradWatch(actions=[action, StopTraining(), SaveBatch()], reporters=[])
    with pytest.raises(ConfigurationError, match=rf"{type(action).__name__} cannot act here"):
        fit(regression(), watch, strategy=strategy("cpu"))


class Given:
    """As much of a Trainer as is asked."""

    def __init__(self, strategy: Any, world_size: int) -> None:
        self.strategy, self.world_size, self.optimizers = strategy, world_size, []


def reason(strategy: Any, world_size: int) -> str:
    return TrainerView(Given(strategy, world_size), mlp(2, 1)).untrusted


def test_strategies_that_are_known_and_not():
    class Mine(DDPStrategy):
        pass

    class Foreign:
        pass

    for known in (DDPStrategy(), Mine(), SingleDeviceStrategy("cpu")):
        assert reason(known, 2) == ""
    assert reason(Foreign(), 1) == ""  # one process: what is in `.grad` is the whole
    assert "Foreign is not known here" in reason(Foreign(), 2)
    assert "averages models" in reason(DDPStrategy(model_averaging_period=4), 2)
    # Lightning's own DeepSpeedStrategy is a DDPStrategy.
    assert "DeepSpeed" in reason(type("DeepSpeedStrategy", (DDPStrategy,), {})(), 2)


class Copies(torch.optim.SGD):
    """Steps on copies of its own, as mixed precision optimizers of old do."""


def test_optimizer_with_copies_of_its_own():
    net = mlp(8, 4, 1)
    copies = [nn.Parameter(p.detach().clone()) for p in net.parameters()]
    sgd = Copies(copies, 0.1)
    watcher = GradientWatcher(net, sgd, reporters=[])
    with pytest.warns(GradWatchWarning, match="Copies holds no parameter of the model"):
        watcher.__enter__()
    with closing(watcher):
        for x, y in data():
            loss = (net(x) - y).square().mean()
            net.zero_grad()
            loss.backward()
            for copy, parameter in zip(copies, net.parameters(), strict=True):
                copy.grad = parameter.grad.clone()
            watcher.step(loss=loss)
            sgd.step()
    assert np.isnan(watcher.history.global_norm).all()
    assert np.isfinite(watcher.history.loss).all()


class NotTorch:
    """An optimizer that has groups and steps, and knows nothing of torch's hooks."""

    def __init__(self, parameters: Any, lr: float) -> None:
        self.param_groups = [{"params": list(parameters), "lr": lr}]

    def zero_grad(self) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.add_(parameter.grad, alpha=-self.param_groups[0]["lr"])


def test_optimizer_that_is_not_torch_s():
    histories = []
    for kind in (torch.optim.SGD, NotTorch):
        torch.manual_seed(0)
        net = mlp(8, 4, 1)
        optimizer = kind(net.parameters(), 0.1)
        with (
            warnings.catch_warnings(),
            GradientWatcher(net, optimizer, actions=[ClipGradNorm(0.5)], reporters=[]) as watcher,
        ):
            warnings.simplefilter("error")
            for x, y in data():
                loss = (net(x) - y).square().mean()
                optimizer.zero_grad()
                loss.backward()
                watcher.step(loss=loss)
                optimizer.step()
        histories.append(watcher.history)
    theirs, own = histories
    assert np.array_equal(own.grad_norm, theirs.grad_norm)
    assert own.clipped_norm == pytest.approx(theirs.clipped_norm, rel=1e-6)
    assert np.array_equal(own.lr, theirs.lr)


def test_fsdp1_in_a_bare_loop_is_known_by_its_wrapper():
    net = nn.Sequential(type("FullyShardedDataParallel", (nn.Sequential,), {})(mlp(8, 1)))
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    watcher = GradientWatcher(net, sgd, reporters=[])
    with pytest.warns(GradWatchWarning, match="no norms.*FSDP1.*FSDP2"):
        watcher.__enter__()
    with closing(watcher):
        net(torch.ones(2, 8)).sum().backward()
        watcher.step()
        sgd.step()
    assert np.isnan(watcher.history.global_norm).all()
