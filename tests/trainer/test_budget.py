"""An overhead budget in real fits: what is told, what is thinned, and what stays as it was."""

from __future__ import annotations

import copy
import json
import pickle
import time
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from lightning_gradwatch import GradientWatcher, GradWatch, GradWatchWarning
from lightning_gradwatch.actions import ClipGradNorm, SkipStep
from lightning_gradwatch.detectors import NonFiniteGradient
from lightning_gradwatch.engine import Engine
from lightning_gradwatch.hands import Hands
from lightning_gradwatch.paced import PacedEngine
from lightning_gradwatch.reporters.protocol import RunInfo
from lightning_gradwatch.settings import Settings
from tests.trainer.models import data, fit, mlp, regression


class Slow:
    """A detector that takes its time, and notes which steps it saw."""

    def __init__(self, seconds: float = 0.004) -> None:
        self.seconds = seconds
        self.steps: list[int] = []

    def update(self, sample: Any) -> list[Any]:
        time.sleep(self.seconds)
        self.steps.append(sample.step)
        return []


class Notes:
    """An action that notes which steps it saw; waits for the verdict of each."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def apply(self, findings: Any, training: Any) -> None:
        self.steps.append(training.step)


def watched(**arguments: Any) -> GradWatch:
    return GradWatch(**{"reporters": [], "budget": 0.05, "detectors": [Slow()]} | arguments)


def told(caught: Any) -> list[str]:
    return [str(w.message) for w in caught if "budget" in str(w.message)]


def trained(*watches: GradWatch, **trainer: Any) -> tuple[Any, list[str]]:
    torch.manual_seed(0)
    model = regression(mlp(8, 16, 16, 1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        it = fit(model, *watches, **{"loader": data(800), "max_epochs": 2} | trainer)
    return it, told(caught)


def test_what_takes_too_long_is_done_less_often_and_told_once():
    watch = watched()
    it, said = trained(watch)
    (message,) = said
    assert "budget=0.05 allows 5 %" in message
    assert "one step in" in message
    assert "every_n_steps=1 and flow_every_n_steps=50 hold again" in message
    steps = watch.history.steps
    assert steps[:24].tolist() == list(range(24)), "nothing is left out before it was measured"
    assert len(steps) < 120
    assert watch.history.recorded == len(watch._engine.detectors[0].steps)
    assert "budget of 5 %" in watch.report().environment["sampling"]
    assert "budget of 5 %" in str(watch.report())
    plain, nothing = trained()
    assert not nothing
    for a, b in zip(it.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_that_ends_on_trial_is_told_too():
    _, said = trained(watched(), loader=data(8 * 30), max_epochs=1)
    assert len(said) == 1


def test_within_the_budget_nothing_is_told_and_nothing_left_out():
    watch = watched(budget=1.0, detectors=[])
    loader = data(8 * 80)
    model = regression(mlp(8, 16, 16, 1))
    step = model.training_step

    def training_step(batch: Any, batch_idx: int) -> Any:
        time.sleep(0.005)
        return step(batch, batch_idx)

    model.training_step = training_step
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, watch, loader=loader)
    assert not told(caught)
    assert len(watch.history) == 80
    assert "sampling" not in watch.report().environment


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_lost_is_seen_at_its_step(value):
    watch = watched(detectors=[Slow(), NonFiniteGradient()])
    model = regression(mlp(8, 16, 16, 1))
    step = model.training_step

    def training_step(batch: Any, batch_idx: int) -> Any:
        return step(batch, batch_idx) * (value if batch_idx == 97 else 1.0)

    model.training_step = training_step
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(model, watch, loader=data(800))
    assert 96 not in watch.history.steps
    [found] = [f for f in watch.findings if f.code == "nonfinite"]
    assert found.first_step == 97


def test_actions_see_every_step():
    watch = watched(actions=[Notes()])
    it, said = trained(watch)
    assert watch._engine.actions[0].steps == list(range(it.global_step))
    assert watch._engine.detectors[0].steps == list(range(it.global_step))
    (message,) = said
    assert "above the budget" in message
    assert "actions read the gradients of each" in message
    assert len(watch.history) < it.global_step


def test_a_nan_is_kept_from_the_weights_however_rarely_steps_are_recorded():
    loader = data(8 * 100)
    loader.dataset.tensors[0][8 * 77] = float("nan")
    watch = watched(actions=[SkipStep()], detectors=[Slow(), NonFiniteGradient()])
    it, _ = trained(watch, loader=loader, max_epochs=1)
    assert [r.step for r in watch.actions_taken] == [77]
    assert all(torch.isfinite(p).all() for p in it.model.parameters())


def test_clipping_is_that_of_a_run_without_a_budget():
    runs = []
    for arguments in ({}, {"budget": None, "detectors": []}):
        watch = watched(actions=[ClipGradNorm(0.05)], **arguments)
        it, _ = trained(watch)
        runs.append((it, watch))
    for a, b in zip(runs[0][0].model.parameters(), runs[1][0].model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [r.step for r in runs[0][1].actions_taken] == [r.step for r in runs[1][1].actions_taken]


def test_a_resumed_run_keeps_the_intervals(tmp_path):
    watch = watched()
    it, said = trained(watch)
    assert len(said) == 1
    it.save_checkpoint(tmp_path / "half.ckpt")
    torch.load(tmp_path / "half.ckpt", weights_only=True)
    json.dumps(watch.state_dict())
    resumed = watched()
    _, said = trained(resumed, max_epochs=3, ckpt_path=tmp_path / "half.ckpt")
    assert not said, "it was told in this run"
    pace = watch._engine._pace
    assert len(resumed.history) <= 100 / pace.intervals.norms + 100 / pace.intervals.looks * 2 + 1
    assert resumed._engine._pace.intervals.norms >= pace.intervals.norms
    assert "sampling" in resumed.report().environment


def test_a_checkpoint_from_before_there_was_a_budget(tmp_path):
    watch = watched()
    state = watch.state_dict()
    state.pop("pace")
    watch.load_state_dict(state)
    assert watch._restored


def test_no_budget_costs_nothing_and_changes_no_key():
    watch = GradWatch(reporters=[])
    assert type(watch._engine) is Engine
    assert watch._engine.pace is None
    assert watch._engine.sampling is watch._engine.settings
    assert "budget" not in watch.state_key
    assert "budget" in watched().state_key


def test_two_fits_start_anew():
    watch = watched()
    for _ in range(2):
        _, said = trained(watch)
        assert len(said) == 1
        assert watch.history.steps[:24].tolist() == list(range(24))


def test_a_trial_run_leaves_no_trace():
    watch = watched()
    trained(watch, max_epochs=1)
    trained(watch, fast_dev_run=True)
    assert watch._engine._pace._depth == 0
    _, said = trained(watch)
    assert len(said) == 1


def test_copies_and_pickles():
    watch = watched()
    trained(watch, max_epochs=1)
    for other in (copy.deepcopy(watch), pickle.loads(pickle.dumps(watch))):
        assert len(other.history) == len(watch.history)
        assert len(trained(other)[1]) == 1


def test_under_accumulation_a_turn_is_a_step():
    watch = watched()
    _, said = trained(watch, accumulate_grad_batches=2)
    assert len(said) == 1
    assert watch.history.steps[:24].tolist() == list(range(24))


def test_the_loss_of_a_recorded_step_is_there():
    watch = watched(every_n_steps=3)
    trained(watch, accumulate_grad_batches=2)
    assert not watch.history.to_pandas().loss.isna().any()


def test_several_processes_keep_their_intervals():
    model = mlp(8, 4, 1)
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    for reporting in (True, False):
        engine = PacedEngine(Settings(budget=0.01), [Slow()], [], [])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            engine.start(model, [sgd], RunInfo(), Hands(ranks=2), reporting=reporting)
        assert len(told(caught)) == reporting
        assert not reporting or "2 processes" in told(caught)[0]
        assert engine.pace is None
        assert engine.sampling == engine.settings
        engine.stop()


def bare(watcher: GradientWatcher, model: nn.Module, sgd: Any, steps: int) -> None:
    for _ in range(steps):
        loss = model(torch.ones(3, 8)).square().mean()
        sgd.zero_grad()
        loss.backward()
        watcher.step(loss=loss)
        sgd.step()


@pytest.mark.parametrize("optimizer", [True, False])
def test_a_loop_of_ones_own(optimizer):
    model, slow = mlp(8, 16, 1), Slow()
    sgd = torch.optim.SGD(model.parameters(), 0.01)
    arguments: dict[str, Any] = {"reporters": [], "detectors": [slow], "budget": 0.05}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with GradientWatcher(model, sgd if optimizer else None, **arguments) as watcher:
            bare(watcher, model, sgd, 150)
    assert len(told(caught)) == 1
    assert watcher.history.steps[:24].tolist() == list(range(24))
    assert 24 < len(watcher.history) < 60
    assert not torch.tensor(watcher.history.loss).isnan().any()


def test_no_look_into_modules_is_begun_because_of_a_budget():
    watch = watched(flow_every_n_steps=0)
    trained(watch)
    assert watch.history.flow == []
    assert watch._engine.sampling.flow_every_n_steps == 0


@pytest.mark.parametrize("kind", [GradWatch, lambda **a: GradientWatcher(nn.Linear(1, 1), **a)])
@pytest.mark.parametrize(
    ("budget", "error"),
    [(0, ValueError), (-0.1, ValueError), (1.5, ValueError), (float("nan"), ValueError),
     ("1 %", TypeError), (True, TypeError)],
)  # fmt: skip
def test_bad_budgets(kind, budget, error):
    with pytest.raises(error, match="budget must be") as caught:
        kind(budget=budget)
    assert repr(budget) in str(caught.value)


def test_the_warning_is_of_our_kind():
    with pytest.warns(GradWatchWarning, match="budget"):
        fit(regression(), watched(), loader=data(8 * 40))
