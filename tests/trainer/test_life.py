"""Attach, detach, twice, again, resumed, copied, and under every way a fit can end."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_gradwatch import GradWatch
from lightning_gradwatch.actions import ClipGradNorm, DecayLR, SkipStep
from tests.trainer.models import data, fit, lightning, mlp, regression


def hooks_on(model: nn.Module, optimizers: Any = ()) -> int:
    stores = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    count = sum(len(getattr(m, s)) for m in model.modules() for s in stores)
    count += sum(len(p._backward_hooks or ()) for p in model.parameters())
    return count + sum(len(o._optimizer_step_post_hooks) for o in optimizers)


class Bad(Exception):
    pass


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(1, 6, batch_first=True)
        self.head = nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x.unsqueeze(-1))[0][:, -1])


@pytest.mark.parametrize("how", ["end", "stop", "error", "interrupt"])
def test_hooks_are_gone_however_the_fit_ends(how):
    model, watch = regression(Recurrent()), GradWatch(reporters=[])
    step = model.training_step

    def training_step(batch, batch_idx):
        assert hooks_on(model) > 0
        if batch_idx == 2:
            if how == "error":
                raise Bad
            if how == "interrupt":
                raise KeyboardInterrupt
            model.trainer.should_stop = how == "stop"
        return step(batch, batch_idx)

    model.training_step = training_step
    trainer = lightning().Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[watch],
    )  # fmt: skip
    # Lightning 2.0 swallows an interrupt, later releases end the process.
    with contextlib.suppress(Bad, KeyboardInterrupt, SystemExit):
        trainer.fit(model, data())
    assert hooks_on(model, trainer.optimizers) == 0
    assert len(watch.history) == {"end": 5, "stop": 3, "error": 2, "interrupt": 2}[how]
    assert not watch._engine.attached


def test_report_is_finished_once_even_after_an_error():
    finished = []

    class Reporter:
        def finish(self, report):
            finished.append(report.steps)

    model = regression()
    step = model.training_step

    def training_step(batch, batch_idx):
        if batch_idx == 3:
            raise Bad
        return step(batch, batch_idx)

    model.training_step = training_step
    with pytest.raises(Bad):
        fit(model, GradWatch(reporters=[Reporter()]))
    assert finished == [3]


@pytest.mark.parametrize("equal", [True, False])
def test_two_in_one_trainer(equal, tmp_path):
    second = {} if equal else {"every_n_steps": 2}
    watches = [GradWatch(reporters=[]), GradWatch(reporters=[], **second)]
    trainer = fit(regression(), *watches)
    assert [len(w.history) for w in watches] == [5, 5 if equal else 3]
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    states = torch.load(tmp_path / "two.ckpt", weights_only=True)["callbacks"]
    assert len([key for key in states if key.startswith("GradWatch")]) == 2


def test_fit_twice_starts_anew():
    watch, model = GradWatch(reporters=[]), regression()
    fit(model, watch)
    fit(model, watch)
    assert watch.history.steps.tolist() == [0, 1, 2, 3, 4]
    assert hooks_on(model) == 0


def test_same_trainer_goes_on():
    watch, model = GradWatch(reporters=[]), regression()
    trainer = fit(model, watch)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, data())
    assert watch.history.steps.tolist() == [5, 6, 7, 8, 9]


def test_fast_dev_run_and_lr_finder_leave_no_trace():
    watch, model = GradWatch(reporters=[]), regression()
    fit(model, watch, fast_dev_run=2)
    assert len(watch.history) == 0

    model.lr = 0.01
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), model.lr)
    from pytorch_lightning.tuner import Tuner

    trainer = lightning().Trainer(
        max_epochs=1, accelerator="cpu", logger=False, callbacks=[watch],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    Tuner(trainer).lr_find(model, data(400), num_training=20)
    assert len(watch.history) == 0
    assert hooks_on(model) == 0


def seen_by(detectors: list[Any], **trainer: Any) -> tuple[Any, Any]:
    model = regression(optimizer=lambda m: torch.optim.Adam(m.parameters(), 0.3))
    torch.manual_seed(0)
    for p in model.parameters():
        nn.init.normal_(p)
    actions = [SkipStep(), ClipGradNorm(1.0), DecayLR(on=("spike", "exploding"), cooldown=3)]
    watch = GradWatch(reporters=[], detectors=detectors or None, actions=actions)
    # One batch of every epoch is an outlier, so that detectors and actions have work to do.
    loader = data(40)
    loader.dataset.tensors[0][17] *= 3e3
    return fit(model, watch, loader=loader, **trainer), watch


def test_resumed_run_decides_as_an_uninterrupted_one(tmp_path):
    whole, watch = seen_by([], max_epochs=8)
    first, _ = seen_by([], max_epochs=4)
    first.save_checkpoint(tmp_path / "half.ckpt")
    state = torch.load(tmp_path / "half.ckpt", weights_only=True)
    assert any(key.startswith("GradWatch") for key in state["callbacks"])
    rest, resumed = seen_by([], max_epochs=8, ckpt_path=tmp_path / "half.ckpt")
    assert resumed.findings == watch.findings
    assert resumed.actions_taken == watch.actions_taken
    assert len(watch.actions_taken) > 3
    for a, b in zip(whole.model.parameters(), rest.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert resumed.history.steps.tolist() == list(range(20, 40))
    assert resumed.history.global_norm == pytest.approx(watch.history.global_norm[20:], nan_ok=True)


def test_state_is_plain_python_and_round_trips():
    _, watch = seen_by([], max_epochs=2)
    state = json.loads(json.dumps(watch.state_dict()))
    other = GradWatch(
        reporters=[],
        actions=[SkipStep(), ClipGradNorm(1.0), DecayLR(on=("spike", "exploding"), cooldown=3)],
    )
    other.load_state_dict(state)
    assert json.dumps(other.state_dict(), sort_keys=True) == json.dumps(state, sort_keys=True)


def test_broken_state_warns_and_starts_anew():
    watch = GradWatch(reporters=[])
    with pytest.warns(UserWarning, match="restoring the state"):
        watch.load_state_dict({"nonsense": 1})
    fit(regression(), watch)
    assert len(watch.history) == 5


def test_models_copy_and_pickle_while_they_are_watched(tmp_path):
    model, watch = regression(Recurrent()), GradWatch(reporters=[])
    step = model.training_step
    copies = []

    def training_step(batch, batch_idx):
        if batch_idx == 1:
            copies.append(copy.deepcopy(model.net))
            torch.save(model.net, tmp_path / "net.pt")
            copies.append(torch.load(tmp_path / "net.pt", weights_only=False))
        return step(batch, batch_idx)

    model.training_step = training_step
    fit(model, watch)
    for other in copies:
        other(torch.randn(4, 8)).sum().backward()  # hooks of copies do nothing
    assert len(watch.history) == 5


def test_callback_copies_and_pickles():
    watch = GradWatch(reporters=[])
    fit(regression(), watch)
    for other in (copy.deepcopy(watch), pickle.loads(pickle.dumps(watch))):
        assert np.array_equal(other.history.grad_norm, watch.history.grad_norm)
        fit(regression(), other)
        assert len(other.history) == 5


def test_ddp_spawn_pickles_the_callback():
    watch = GradWatch(reporters=[], actions=[ClipGradNorm(1.0)])
    watch.log = regression().log  # Lightning puts the module's `log` on every callback
    pickle.loads(pickle.dumps(watch))


class Raises:
    """Fails in every role."""

    def update(self, sample):
        raise Bad("detector")

    def apply(self, findings, training):
        raise Bad("action")

    def start(self, run):
        raise Bad("reporter")

    sample = log = finding = action = finish = start


def test_our_bugs_never_end_a_run():
    good = GradWatch(reporters=[])
    watch = GradWatch(detectors=[Raises()], actions=[Raises()], reporters=[Raises()])
    with pytest.warns(UserWarning, match="Raises failed with Bad") as caught:
        fit(regression(), watch, good)
    ours = [str(w.message) for w in caught if "GradWatch" in str(w.message)]
    assert len(ours) == 3
    assert len(watch.history) == len(good.history) == 5


def test_failing_probe_is_switched_off_and_training_goes_on(monkeypatch):
    from lightning_gradwatch.probe.norms import NormReader

    def broken(*_, **__):
        raise Bad("cannot read")

    monkeypatch.setattr(NormReader, "read", broken)
    watch = GradWatch(reporters=[], actions=[ClipGradNorm(1.0)])
    with pytest.warns(UserWarning, match="Probe failed with Bad: cannot read"):
        trainer = fit(regression(), watch)
    assert trainer.global_step == 5


def test_swa_and_weight_averaging_copy_no_hook():
    swa = lightning().callbacks.StochasticWeightAveraging(1e-2, swa_epoch_start=1)
    net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    watch = GradWatch(reporters=[])
    fit(regression(net), watch, swa, max_epochs=4)
    # The extra BatchNorm pass steps with stale gradients and no backward: not a step of ours.
    assert len(watch.history) == 20
    assert hooks_on(swa._average_model) == 0


def test_compiled_module_is_watched_without_hooks():
    model = regression(torch.compile(mlp(8, 4, 1), backend="eager"))
    watch = GradWatch(reporters=[])
    fit(model, watch)
    assert watch.history.layers == ("net.0", "net.2")
    assert np.isfinite(watch.history.grad_norm).all()
