"""Wrong arguments, models without gradients, losses that are NaN, directories that refuse."""

from __future__ import annotations

import os
import random

import pytest
import torch
from torch import nn

from lightning_gradwatch import GradWatch, Severity
from lightning_gradwatch.actions import DecayLR, SkipStep
from tests.trainer.models import data, fit, lightning, mlp, regression


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"every_n_steps": 0}, ValueError, ["every_n_steps", ">= 1", "0"]),
        ({"every_n_steps": 1.5}, TypeError, ["every_n_steps", "int", "1.5"]),
        ({"flow_every_n_steps": -1}, ValueError, ["flow_every_n_steps", ">= 0", "-1"]),
        ({"log_every_n_steps": 0}, ValueError, ["log_every_n_steps", ">= 1", "0"]),
        ({"norm_type": 0}, ValueError, ["norm_type", "> 0", "inf", "0"]),
        ({"norm_type": float("nan")}, ValueError, ["norm_type", "nan"]),
        ({"norm_type": "two"}, ValueError, ["norm_type", "two"]),
        ({"include": []}, ValueError, ["include", "[]"]),
        ({"exclude": [3]}, ValueError, ["exclude", "3"]),
        ({"detectors": "vanishing"}, TypeError, ["detectors", "list", "vanishing"]),
        ({"actions": [SkipStep]}, TypeError, ["SkipStep", "instance"]),
        ({"actions": [object()]}, TypeError, ["apply"]),
        ({"reporters": [object()]}, TypeError, ["finish"]),
        ({"record": 3}, TypeError, ["record", "3"]),
        ({"preflight": "yes"}, TypeError, ["preflight", "True", "False", "yes"]),
        ({"budget": 0}, ValueError, ["budget", "> 0 and <= 1", "0"]),
        ({"budget": "1 %"}, TypeError, ["budget", "number", "1 %"]),
        ({"every_step": 3}, TypeError, ["every_step"]),
    ],
)
def test_wrong_arguments_show_value_and_choices(arguments, error, words):
    with pytest.raises(error) as caught:
        GradWatch(**arguments)
    for word in words:
        assert word in str(caught.value)


def test_arguments_are_keyword_only():
    with pytest.raises(TypeError):
        GradWatch(1)


def test_unknown_code_shows_the_codes():
    with pytest.raises(ValueError, match=r"'explode'.*vanishing.*my\.code"):
        DecayLR(on=("explode",))
    DecayLR(on=("my.code",))


def test_include_that_matches_nothing_names_what_is_there():
    with pytest.raises(ValueError, match=r"encoder\.\*.*net\.0\.weight"):
        fit(regression(), GradWatch(include=["encoder.*"], reporters=[]))


def test_model_without_trainable_parameters_is_a_finding_and_trains():
    model = regression()
    model.requires_grad_(False)
    model.training_step = lambda batch, batch_idx: None
    model.configure_optimizers = lambda: None
    watch = GradWatch()
    fit(model, watch)
    assert [f.code for f in watch.findings] == ["no_gradient"]
    assert "no trainable parameter" in watch.findings[0].summary
    assert len(watch.history) == 0
    assert str(watch.report())


def test_loss_that_is_nan_from_the_first_step():
    model = regression()
    step = model.training_step
    model.training_step = lambda batch, batch_idx: step(batch, batch_idx) * float("nan")
    watch = GradWatch()
    fit(model, watch)
    assert [f.code for f in watch.findings] == ["nonfinite"]
    finding = watch.findings[0]
    assert finding.severity is Severity.ERROR
    assert finding.first_step == 0
    assert not watch.healthy
    assert len(watch.history) == 5


def test_nan_from_the_first_step_with_everything_switched_on(tmp_path):
    from lightning_gradwatch.actions import ClipGradNorm, ClipGradValue

    model = regression()
    step = model.training_step
    model.training_step = lambda batch, batch_idx: step(batch, batch_idx) * float("nan")
    before = [p.detach().clone() for p in model.parameters()]
    actions = [SkipStep(max_consecutive=100), ClipGradNorm(1.0), ClipGradValue(1.0), DecayLR()]
    watch = GradWatch(actions=actions)
    logger = lightning().loggers.TensorBoardLogger(tmp_path)
    fit(model, watch, logger=logger, log_every_n_steps=1)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert {r.action for r in watch.actions_taken} == {"SkipStep"}


@pytest.mark.parametrize("where", ["file", "argument"])
def test_unwritable_log_directory_warns_once_and_the_run_survives(where, tmp_path):
    # A file where a directory should be refuses root as well, which permission bits do not.
    (tmp_path / "blocked").write_text("")
    place = tmp_path / "blocked" / "gradwatch"
    watch = GradWatch(record=place if where == "argument" else os.fspath(place))
    with pytest.warns(UserWarning, match="record") as caught:
        fit(regression(), watch)
    assert len([w for w in caught if "GradWatch" in str(w.message)]) == 1
    assert len(watch.history) == 5


def test_no_logger_records_nothing_and_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    watch = GradWatch()
    fit(regression(), watch, logger=False)
    assert list(tmp_path.iterdir()) == []
    assert len(watch.history) == 5


def test_module_that_produces_no_gradient_at_all():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Linear(8, 1)
            self.unused = nn.Linear(8, 1)

        def forward(self, x):
            return self.used(x)

    watch = GradWatch(reporters=[])
    fit(regression(Detached()), watch, loader=data(400), max_epochs=4)
    assert [(f.code, f.layers) for f in watch.findings] == [("no_gradient", ("net.unused",))]
    assert watch.healthy


class OtherEachTime(nn.Module):
    """Calls some of its children, in an order that is drawn anew."""

    def __init__(self):
        super().__init__()
        self.children_ = nn.ModuleList(nn.Linear(8, 8) for _ in range(5))
        self.head = nn.Linear(8, 1)
        self.random = random.Random(0)

    def forward(self, x):
        for child in self.random.sample(list(self.children_), self.random.randint(1, 5)):
            x = torch.tanh(child(x))
        return self.head(x)


class ReplacedAtTen(nn.Module):
    """Puts another module in the place of a child after ten forward passes."""

    def __init__(self):
        super().__init__()
        self.net = mlp(8, 16, 16, 1)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 10:
            self.net[2] = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16))
        return self.net(x)


@pytest.mark.parametrize("make", [OtherEachTime, ReplacedAtTen])
def test_modules_that_come_and_go(make, recwarn):
    torch.manual_seed(0)
    watch = GradWatch(flow_every_n_steps=5, record=False, reporters=[])
    fit(regression(make()), watch, loader=data(400))
    assert len(watch.history) == 50
    assert len(watch.history.flow) >= 15
    assert watch.healthy
    assert not [w for w in recwarn if "GradWatch" in str(w.message)]
