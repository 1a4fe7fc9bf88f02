"""In a Trainer, with numbers that come late: resumed, interrupted, with actions and culprits."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn, optim

from lightning_gradwatch import GradWatch
from lightning_gradwatch.actions import ClipGradNorm, SkipStep
from tests.culprit.test_in_trainer import trainable
from tests.ring.doors import DeadDoor, LateDoor, SilentDoor
from tests.ring.runs import Told, assert_same, read_wide
from tests.trainer.models import data, fit, mlp, regression, scaler_plugin

NAN = float("nan")
FUSED = partial(optim.AdamW, lr=0.01, fused=True)


@pytest.fixture
def door(monkeypatch):
    """Let numbers come late from now on; returns how."""

    def install(door: Any) -> Any:
        monkeypatch.setattr("lightning_gradwatch.engine.door_for", lambda devices: door)
        return door

    return install


def seen(watch: GradWatch, told: Told, model: nn.Module) -> dict[str, Any]:
    history = watch.history
    return {
        "events": told.events,
        "global_norm": history.global_norm,
        "clipped_norm": history.clipped_norm,
        "loss": history.loss,
        "update_ratio": history.update_ratio,
        "findings": [f.to_dict() for f in watch.findings],
        "records": [r.to_dict() for r in watch.actions_taken],
        "weights": {k: v.clone() for k, v in model.state_dict().items()},
    }


def norm_net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))


def poisoned() -> Any:
    """Thirty batches; two in a row that hold NaN, and one that is huge."""
    loader = data(240)
    loader.dataset.tensors[0][100] = NAN
    loader.dataset.tensors[0][108] = NAN
    loader.dataset.tensors[0][170] *= 1e4
    return loader


RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate_grad_batches": 3},
    "clipped by the Trainer": {"gradient_clip_val": 0.1},
    "clipped by us": {"actions": lambda: [ClipGradNorm(0.1)], "make": FUSED},
    "skipped": {"actions": lambda: [SkipStep(), ClipGradNorm(0.1)], "make": FUSED},
    "scaler": {"plugins": lambda: [scaler_plugin()]},
    "scaler, fused": {"plugins": lambda: [scaler_plugin()], "make": FUSED},
}


@pytest.mark.parametrize("name", RUNS)
def test_late_numbers_make_the_same_fit(name, door, monkeypatch):
    read_wide(monkeypatch)
    results = []
    for late in (None, 0, 4, (0, 6)):
        door(None if late is None else LateDoor(late))
        options = dict(RUNS[name])
        plugins = options.pop("plugins", None)
        torch.manual_seed(0)
        told = Told()
        watch = GradWatch(reporters=[told], actions=options.pop("actions", list)())
        make = options.pop("make", partial(optim.SGD, lr=0.05))
        model = regression(norm_net(), lambda m, make=make: make(m.parameters()))
        options |= {} if plugins is None else {"plugins": plugins()}
        fit(model, watch, loader=poisoned(), log_every_n_steps=7, **options)
        results.append(seen(watch, told, model))
        for result in results:  # the culprit is looked for where numbers are waited for, only
            for text in ("findings", "records", "events"):
                result[text] = without_words(result[text])
    for late in results[1:]:
        assert_same(results[0], late, name, rel=1e-15)
    assert len(results[0]["global_norm"]) == (10 if name == "accumulated" else 30)


def without_words(events: list[Any]) -> list[Any]:
    """Leave of findings and records what a culprit does not change."""

    def plain(event: Any) -> Any:
        if isinstance(event, tuple) and event[0] in ("finding", "action"):
            return (event[0], plain(event[1]))
        if not isinstance(event, dict):
            return event
        return {k: event[k] for k in ("code", "first_step", "step", "action") if k in event}

    return [plain(event) for event in events]


def test_resumed_in_the_middle_of_what_is_under_way(door, tmp_path):
    door(LateDoor(3))

    def run(**options: Any) -> tuple[Any, GradWatch]:
        torch.manual_seed(0)
        model = regression(mlp(8, 16, 1), lambda m: FUSED(m.parameters()))
        watch = GradWatch(reporters=[], actions=[SkipStep(), ClipGradNorm(0.5)])
        loader = data(80)
        loader.dataset.tensors[0][61] = NAN
        return fit(model, watch, loader=loader, **options), watch

    whole, watch = run(max_epochs=4)
    first, half = run(max_epochs=2)
    first.save_checkpoint(tmp_path / "half.ckpt")
    assert len(half.history) == 20  # the checkpoint waited for what was under way
    rest, resumed = run(max_epochs=4, ckpt_path=tmp_path / "half.ckpt")
    # In words a run looks for a culprit until it has found one, a resumed one again.
    told = [[(r.action, r.step, str(r.before)) for r in w.actions_taken] for w in (watch, resumed)]
    assert told[0] == told[1]
    spans = [
        [(f.code, f.first_step, f.last_step, f.count) for f in w.findings] for w in (watch, resumed)
    ]
    assert spans[0] == spans[1]
    assert len([r for r in watch.actions_taken if r.action == "SkipStep"]) == 4
    for a, b in zip(whole.model.parameters(), rest.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert_same(resumed.history.global_norm, watch.history.global_norm[20:])


class UsersError(Exception):
    pass


def fails_at(step: int) -> Any:
    model = regression()
    training_step = model.training_step

    def failing(batch: Any, batch_idx: int) -> Any:
        if batch_idx == step:
            raise UsersError("mine")
        return training_step(batch, batch_idx)

    model.training_step = failing
    return model


def test_an_exception_loses_no_step_of_a_device_that_lives(door):
    door(LateDoor(2))
    told = Told()
    watch = GradWatch(reporters=[told])
    with pytest.raises(UsersError, match="mine"):
        fit(fails_at(20), watch, loader=data(400))
    assert watch.history.steps.tolist() == list(range(20))
    assert len([e for e in told.events if e[0] == "sample"]) == 20


def test_an_exception_on_a_dead_device_stays_the_users(door, recwarn):
    door(DeadDoor(works=9))
    watch = GradWatch(reporters=[])
    with pytest.raises(UsersError, match="mine"):
        fit(fails_at(9), watch, loader=data(400))
    assert watch.history.steps.tolist() == list(range(9))
    assert not [w for w in recwarn if "GradWatch" in str(w.message)]


def test_an_exception_does_not_wait_for_a_device_that_is_silent(door):
    door(SilentDoor())
    watch = GradWatch(reporters=[])
    begin = time.monotonic()
    with pytest.raises(UsersError, match="mine"):
        fit(fails_at(9), watch, loader=data(400))
    assert time.monotonic() - begin < 20.0
    assert len(watch.history) == 0


def test_a_device_that_dies_in_the_run_switches_us_off_once(door):
    door(DeadDoor(works=5))
    watch = GradWatch(reporters=[])
    with pytest.warns(UserWarning, match="Probe failed with RuntimeError: CUDA error") as caught:
        trainer = fit(regression(), watch, loader=data(400))
    assert len([w for w in caught if "GradWatch" in str(w.message)]) == 1
    assert trainer.global_step == 50
    assert watch.history.steps.tolist() == list(range(5))


def test_report_waits_for_what_is_under_way(door):
    door(LateDoor(5))
    counts = []
    watch = GradWatch(reporters=[])
    model = regression()
    model.on_train_batch_end = lambda *_: counts.append(watch.report().steps)
    fit(model, watch, log_every_n_steps=1000)
    assert counts == [1, 2, 3, 4, 5]


def nan_at_three(self: Any, batch: Any, batch_idx: int) -> torch.Tensor:
    out = self.net(batch[0])
    return (out - batch[1]).square().mean() + (
        torch.log((out * 0).sum()) if batch_idx == 3 else 0.0
    )


def test_who_made_a_nan_is_named_where_the_step_was_left_out(door):
    door(LateDoor(2))
    watch = GradWatch(reporters=[], actions=[SkipStep()])
    model = trainable(nan_at_three)
    model.configure_optimizers = lambda: FUSED(model.parameters())
    fit(model, watch, loader=data(80))
    assert watch._engine.detectors
    [found] = [f for f in watch.findings if f.code == "nonfinite"]
    assert "the log of 0" in found.summary
    assert found.evidence["batch_idx"] == found.first_step == 3
    assert found.evidence["reproduced"] == 1
    assert [r.step for r in watch.actions_taken] == [3]
    assert all(torch.isfinite(v).all() for v in model.state_dict().values())


def test_where_the_weights_are_gone_it_says_why_nobody_is_named(door):
    door(LateDoor(2))
    watch = GradWatch(reporters=[])
    fit(trainable(nan_at_three), watch, loader=data(80))
    [found] = [f for f in watch.findings if f.code == "nonfinite"]
    assert "Not replayed: on an accelerator numbers are seen after the step" in found.summary
    assert found.evidence["replayed"] == 0
    assert found.first_step == 3


def test_a_batch_that_holds_nan_is_named_all_the_same(door):
    door(LateDoor(2))
    watch = GradWatch(reporters=[])
    fit(regression(), watch, loader=poisoned())
    [found] = [f for f in watch.findings if f.code == "nonfinite"]
    assert found.summary.startswith("The batch holds NaN: batch[0] (8 of 64 values)")
    assert found.evidence["batch_idx"] == 12


def test_too_many_skips_end_training_a_few_steps_later(door):
    door(LateDoor(3))
    watch = GradWatch(reporters=[], actions=[SkipStep(max_consecutive=4)])
    model = regression(mlp(8, 16, 1), lambda m: FUSED(m.parameters()))
    step = model.training_step
    model.training_step = lambda batch, batch_idx: (
        step(batch, batch_idx) * (NAN if batch_idx >= 5 else 1.0)
    )
    trainer = fit(model, watch, loader=data(400))
    assert 9 <= trainer.global_step <= 9 + 3
    stops = [r for r in watch.actions_taken if "training stops" in r.reason]
    assert stops[0].step == 8
    assert all(torch.isfinite(p).all() for p in model.parameters())
