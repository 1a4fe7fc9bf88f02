"""The zoo: measured labels of three small cases, and a catalogue that keeps its promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.zoo.cases import faulty, healthy
from benchmarks.zoo.catalogue import SPLITS
from benchmarks.zoo.config import Case
from benchmarks.zoo.remedies import remedies_of
from benchmarks.zoo.symptoms import dead_units, exploding, oscillating
from benchmarks.zoo.train import Measured, checkpoints, fit, measure, record
from benchmarks.zoo.truth import judge

CASES = [case for cases in SPLITS.values() for case in cases]
SHORT = {"steps": 120, "batch": 32}


def test_a_run_that_learns_is_healthy():
    verdict = judge(healthy("fine", "plain", "blobs3", lr=1e-2, **SHORT)).verdict
    assert verdict is not None
    assert verdict.healthy
    assert verdict.progress > 0.9


def test_a_deep_sigmoid_net_vanishes():
    case = faulty("deep", "vanishing", {"activation": "relu"}, "blobs3", depth=7, lr=0.1,
                  activation="sigmoid", optimizer="sgd", **SHORT)  # fmt: skip
    verdict = judge(case, with_remedies=False).verdict
    assert verdict is not None
    assert verdict.required == ("vanishing",)


def test_a_nan_in_the_data_is_no_explosion():
    case = faulty("nan", "nonfinite", {"fault": ""}, "blobs3", fault="nan_input", lr=1e-2, **SHORT)
    verdict = judge(case, with_remedies=False).verdict
    assert verdict is not None
    assert verdict.required == ("nonfinite",)
    assert "exploding" not in verdict.tolerated


def test_a_failure_that_nothing_explains_is_dropped():
    case = healthy("slow", "plain", "blobs3", lr=1e-6, **SHORT)
    outcome = judge(case)
    assert outcome.verdict is None
    assert outcome.reason == "fails without a twin"


def test_measuring_and_watching_change_no_bit():
    config = healthy("same", "plain", "blobs3", dropout=0.2, steps=30).config
    alone = fit(config).state_dict()
    trace = record("same", config)  # raises if the watched run is another
    assert len(trace.samples) == 30
    assert [step.step for step in trace.raw[:12]] == [*range(11), 15]
    assert measure(config).losses == measure(config).losses
    again = fit(config).state_dict()
    assert all(torch.equal(alone[name], again[name]) for name in alone)


def test_names_are_unique():
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))


def test_seeds_and_configs_are_unique_over_splits():
    digests = [replace(case.config, seed=0).digest() for case in CASES]
    assert len(digests) == len(set(digests))
    assert len({case.config.seed for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", [c for c in CASES if c.twin], ids=lambda c: c.name)
def test_the_twin_differs_in_one_factor(case: Case):
    assert case.twin_config is not None
    assert case.config.factor_changed(case.twin_config)


def test_every_remedy_changes_something():
    for case in CASES:
        for key, variants in remedies_of(case).items():
            assert all(variant != case.config for variant in variants), (case.name, key)


def test_looks_are_dense_first_and_reach_the_end():
    looks = checkpoints(300)
    assert {0, 1, 2, 3, 5, 300} <= looks
    assert len(looks) < 45


def test_symptoms_of_an_empty_run_are_not_there():
    empty = Measured(norms=[1.0], elasticity=[1.0])
    found = (dead_units(empty), oscillating(empty), exploding(empty, empty))
    assert [symptom.zone for symptom in found] == [-1, -1, -1]


def test_a_brief_measurement_reaches_the_same():
    config = healthy("same", "plain", "friedman", steps=60).config
    ends = [[look.loss for look in measure(config, brief).looks if look.step >= 48]
            for brief in (False, True)]  # fmt: skip
    assert ends[0] == ends[1]
