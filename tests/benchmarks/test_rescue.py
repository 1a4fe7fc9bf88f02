"""The rescue benchmark: what it calls dying, saved, harmed and lost, on small runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from benchmarks.saving import scoring, store
from benchmarks.saving.accidents import Accident
from benchmarks.saving.fresh import FRESH
from benchmarks.saving.held_out import HELD_OUT
from benchmarks.saving.patients import Patient, struck
from benchmarks.saving.policies import FIXED, NONE, POLICIES
from benchmarks.saving.table import Half, data, document
from benchmarks.saving.trial import Result, attempt
from benchmarks.saving.truth import dying, judge, needed, seeds_of
from benchmarks.saving.tuning import TUNING
from benchmarks.zoo.config import Config

SGD = {"optimizer": "sgd", "lr": 0.1, "steps": 60}
NAN = struck("nan", "batch: NaN", Accident("nan", 20), "blobs3", **SGD)
WELL = Patient("well", "plain", Config("blobs3", **SGD))


@pytest.fixture(scope="module")
def results():
    keys = [*needed(NAN), *needed(WELL), *((NAN, p, NAN.config.seed) for p in FIXED)]
    keys += [(NAN, POLICIES["SkipStep()"], NAN.config.seed)]
    keys += [(WELL, POLICIES["SkipStep()"], seed) for seed in seeds_of(WELL)]
    return {key: attempt(*key) for key in keys}


def test_a_nan_kills_and_skipping_alone_saves(results):
    assert judge(NAN, results) == "dying"
    [case] = dying([NAN], results)
    assert case.saviours == ("skip",)
    assert judge(WELL, results) == "well"


def test_a_step_left_out_is_a_step_lost(results):
    skipped = results[NAN, POLICIES["SkipStep()"], NAN.config.seed]
    assert (skipped.steps, skipped.lost, skipped.actions) == (60, 1, {"SkipStep": 1})
    assert skipped.first[0][0] == 20
    assert skipped.weights == results[NAN, POLICIES["skip"], NAN.config.seed].weights


def test_the_score_and_the_document(results):
    sick = dying([NAN], results)
    scores = [scoring.score(POLICIES[name], sick, [WELL], results) for name in ("SkipStep()",)]
    [score] = scores
    assert (score.share_saved, score.share_harmed) == (1.0, 0.0)
    assert (score.quiet, score.identical) == (3, 3)
    assert score.lost == [1 / 60]
    half = Half("tuning", sick, [WELL], {"other": "in between"}, results, scores)
    text = document([half], "python -m benchmarks.rescue")
    assert "| SkipStep() | 1 of 1 | - | 0 of 1 | 3 of 3 | 1.7% (2%) |" in text
    cases = json.loads(data([half], "how"))["tuning"]["cases"]
    assert cases["nan"]["trials"]["none"][0]["loss"] is None
    assert cases["nan"]["trials"]["SkipStep()"][0]["lost"] == 1


def test_an_error_saves_nobody():
    result = attempt(NAN, POLICIES["Trainer(detect_anomaly=True)"], 0)
    assert result.error.startswith("RuntimeError")
    assert math.isnan(result.progress)


def test_a_scaler_that_skips_costs_no_step():
    config = replace(WELL.config, precision="fp16")
    result = attempt(replace(WELL, config=config), NONE, 0)
    assert result.lost == 0
    assert result.progress > 0.7


@pytest.mark.parametrize(
    ("mine", "harmed"),
    [
        ([0.10, 0.10, 0.10], False),
        ([0.13, 0.13, 0.13], True),
        ([0.13, 0.13, 0.09], False),  # better once
        ([0.105, 0.105, 0.105], False),  # not visibly
        ([0.09, 0.09, math.nan], True),
    ],
)
def test_harm_is_a_loss_that_is_higher_on_every_seed(mine, harmed):
    plain = Result(loss=0.1, progress=0.9)
    pairs = [(Result(loss=x, progress=1 - x), plain) for x in mine]
    assert scoring.harms(pairs) is harmed


def test_a_loss_that_is_not_a_number_is_worse():
    assert scoring.is_worse(math.nan, 0.1)
    assert not scoring.is_worse(0.005, 0.0)


def test_accidents_strike_when_they_should():
    accident = Accident("nan", 5, count=3, every=10)
    assert [i for i in range(60) if accident.strikes(i)] == [5, 15, 25]


def test_names_and_runs_are_unique_over_all_halves():
    every = [*TUNING, *HELD_OUT, *FRESH]
    assert len({p.name for p in every}) == len(every)
    assert len({p.digest() for p in every}) == len(every)


def test_what_is_said_in_a_source_trains_nothing_again():
    """What it does, does."""
    source = 'def f(x):\n    """Half of it."""\n    return x / 2\n'
    said = source.replace("Half of it", "A half").replace("return", "# halved\n    return")
    assert store.digest_of([source]) == store.digest_of([said])
    assert store.digest_of([source]) != store.digest_of([source.replace("/ 2", "/ 3")])


def test_trials_are_known_by_the_sources_that_make_a_run(monkeypatch):
    paths = {store.path_of(NAN, NONE, 0)}
    monkeypatch.setattr(store, "runs", lambda: "other")
    paths |= {store.path_of(NAN, NONE, 0), store.path_of(NAN, NONE, 1)}
    assert len(paths) == 3
    assert store.path_of(NAN, POLICIES["SkipStep()"], 0) not in paths


@pytest.mark.parametrize("half", [TUNING, HELD_OUT, FRESH], ids=["tuning", "held out", "fresh"])
def test_each_half_has_enough_of_both_kinds(half):
    assert sum(p.healthy_twin != p for p in half) >= 60
    assert sum(p.healthy_twin == p for p in half) >= 20
