"""`GradWatch(preflight=True)`: judged once, before the first step, and nobody notices."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from lightning_gradwatch import GradWatch, GradWatchWarning
from tests.before_start.models import deep
from tests.culprit.test_in_trainer import plain, trainable
from tests.trainer.models import NAMESPACES, data, fit, lightning, scaler_plugin


class Listens:
    def __init__(self):
        self.told = []

    def finding(self, finding):
        self.told.append((finding.code, finding.first_step))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_is_bit_identical(tmp_path, accumulate):
    results = []
    for watch in (None, GradWatch(preflight=True, reporters=[])):
        lightning().seed_everything(3)
        model = trainable(plain)
        trainer = fit(
            model, *([] if watch is None else [watch]), max_epochs=2, logger=False,
            accumulate_grad_batches=accumulate,
        )  # fmt: skip
        results.append(
            (
                {k: v.clone() for k, v in model.state_dict().items()},
                torch.get_rng_state(),
                {k: str(v) for k, v in trainer.callback_metrics.items()},
                (str(model.losses), model.calls, sorted(vars(model))),
            )
        )
    (weights, rng, *others), (weights2, rng2, *others2) = results
    assert all(torch.equal(weights[name], weights2[name]) for name in weights)
    assert torch.equal(rng, rng2)
    assert others == others2


@pytest.mark.parametrize("name", NAMESPACES)
def test_finding_comes_before_the_first_step(name):
    ears = Listens()
    watch = GradWatch(preflight=True, reporters=[ears])
    told_at = []

    class Looks(lightning(name).Callback):
        def on_before_backward(self, trainer, pl_module, loss):
            told_at.append(len(ears.told))

    model = trainable(plain, net=deep(nn.Sigmoid, 30, 8), name=name)
    fit(model, watch, Looks(), name=name, max_epochs=3)
    assert told_at[0] == 1
    assert ears.told[0] == ("vanishing", 0)
    [found] = [f for f in watch.findings if f.code == "vanishing"]
    assert found.first_step == 0
    assert found.count > 1  # what training shows later is the same statement
    assert "sigmoid" in found.cause
    assert len(watch.history) == 15


def test_healthy_start_says_nothing():
    watch = GradWatch(preflight=True, reporters=[])
    fit(trainable(plain), watch)
    assert watch.healthy


def test_with_a_gradient_scaler():
    watch = GradWatch(preflight=True, reporters=[])
    fit(trainable(plain), watch, plugins=[scaler_plugin(2.0**16)])
    assert watch.healthy


def test_not_again_when_resuming(tmp_path, monkeypatch):
    from lightning_gradwatch import callback

    calls = []
    examine = callback.examine
    monkeypatch.setattr(callback, "examine", lambda *a, **k: calls.append(1) or examine(*a, **k))
    model = trainable(plain)
    trainer = fit(model, GradWatch(preflight=True, reporters=[]), default_root_dir=tmp_path)
    assert calls == [1]
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    fit(trainable(plain), GradWatch(preflight=True, reporters=[]), max_epochs=2,
        ckpt_path=tmp_path / "last.ckpt")  # fmt: skip
    assert calls == [1]
    fit(trainable(plain), GradWatch(preflight=True, reporters=[]))
    assert calls == [1, 1]


def test_where_it_cannot_be_done_it_says_so():
    def manual(self, batch, batch_idx):
        self.manual_backward(plain(self, batch, batch_idx))

    watch = GradWatch(preflight=True, reporters=[])
    model = trainable(
        lambda self, b, i: manual(self, b, i) or plain(self, b, i), automatic_optimization=False
    )
    with pytest.warns(GradWatchWarning, match="no preflight: under manual optimization"):
        fit(model, watch)
    assert watch._engine.guard.works("GradWatch")


def test_an_error_of_the_users_comes_from_the_first_step():
    def fails(self, batch, batch_idx):
        raise KeyError("mine")

    watch = GradWatch(preflight=True, reporters=[])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradWatchWarning)
        with pytest.raises(KeyError, match="mine"):
            fit(trainable(fails), watch, loader=data())
