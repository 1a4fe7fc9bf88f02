from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lightning_gradwatch.detectors import default_detectors
from lightning_gradwatch.diagnosis import Diagnosis
from lightning_gradwatch.facts import ModelFacts
from lightning_gradwatch.finding import Finding, Severity
from tests.detectors.runs import train

LEVELS = {"spike": Severity.INFO, "no_gradient": Severity.INFO, "vanishing": Severity.WARNING}


def finding(code, step, severity=None, layers=("a", "b"), **evidence):
    severity = LEVELS.get(code, Severity.ERROR) if severity is None else severity
    return Finding(code, severity, tuple(layers), step, step, 1, evidence, f"{code} at {step}.")


def observe(diagnosis, *findings):
    """One call for each step, in order; returns the codes announced, by step."""
    told = {}
    for step in sorted({f.first_step for f in findings}):
        now = diagnosis.observe([f for f in findings if f.first_step == step], step)
        if now:
            told[step] = [f.code for f in now]
    return told


@pytest.fixture
def diagnosis():
    return Diagnosis(ModelFacts())


def span(found):
    return found.code, found.first_step, found.last_step, found.count


# ------------------------------------------------------------------ merging


def test_nothing_found_is_healthy(diagnosis):
    assert diagnosis.observe([], 0) == []
    assert diagnosis.findings == ()
    assert diagnosis.healthy


def test_a_symptom_that_goes_on_is_one_finding_told_once(diagnosis):
    told = observe(diagnosis, *(finding("vanishing", t, learning_share=1e-6) for t in range(5, 50)))
    assert told == {5: ["vanishing"]}
    assert [span(f) for f in diagnosis.findings] == [("vanishing", 5, 49, 45)]
    assert not diagnosis.healthy


def test_it_is_told_again_when_it_grows_more_severe(diagnosis):
    told = observe(
        diagnosis,
        finding("vanishing", 5),
        finding("vanishing", 6),
        finding("vanishing", 7, Severity.ERROR),
        finding("vanishing", 8, Severity.WARNING),
    )
    assert list(told) == [5, 7]
    assert diagnosis.findings[0].severity is Severity.ERROR
    assert diagnosis.findings[0].first_step == 5


def test_notes_leave_a_run_healthy(diagnosis):
    observe(diagnosis, finding("spike", 3, factor=20.0), finding("no_gradient", 20))
    assert len(diagnosis.findings) == 2
    assert diagnosis.healthy


@pytest.mark.parametrize(
    ("code", "name", "values", "telling"),
    [
        ("spike", "factor", (20.0, 900.0, 50.0), 1),
        ("exploding", "norm_growth", (40.0, 80.0, 1e9), 2),
        ("vanishing", "learning_share", (1e-4, 1e-9, 1e-6), 1),
        ("vanishing", "time_ratio", (1e-5, 1e-6, 1e-12), 2),
        ("my.code", "anything", (1.0, 2.0, 3.0), 0),
    ],
)
def test_the_most_telling_occurrence_speaks(diagnosis, code, name, values, telling):
    observe(diagnosis, *(finding(code, 20 * t, **{name: v}) for t, v in enumerate(values)))
    [merged] = diagnosis.findings
    assert merged.evidence == {name: values[telling]}
    assert merged.summary == f"{code} at {20 * telling}."
    assert (merged.first_step, merged.last_step, merged.count) == (0, 40, 3)


def test_different_statements_stay_apart(diagnosis):
    observe(
        diagnosis,
        finding("vanishing", 5, learning_share=0.0),
        finding("vanishing", 5, time_ratio=1e-9, layers=["rnn"]),
        finding("vanishing", 5, learning_share=0.0, optimizer=1.0),
        finding("no_gradient", 19, layers=["x"]),
        finding("no_gradient", 30, layers=["y"]),
    )
    assert len(diagnosis.findings) == 5


def test_findings_are_in_order_of_onset(diagnosis):
    observe(diagnosis, finding("vanishing", 30), finding("spike", 3), finding("nonfinite", 7))
    assert [f.code for f in diagnosis.findings] == ["spike", "nonfinite", "vanishing"]


# ------------------------------------------------------------------ root causes


def test_spikes_that_lead_into_an_explosion_are_its_beginning(diagnosis):
    told = observe(
        diagnosis,
        finding("spike", 40, factor=12.0),
        finding("spike", 100, factor=30.0),
        finding("spike", 101, factor=90.0),
        finding("exploding", 102, norm_growth=1e3),
        finding("spike", 102, factor=500.0),
        finding("exploding", 103, norm_growth=1e4),
    )
    assert told == {40: ["spike"], 102: ["exploding"]}
    assert [span(f) for f in diagnosis.findings] == [
        ("spike", 40, 40, 1),
        ("exploding", 100, 103, 4),
    ]


def test_a_spike_long_before_has_nothing_to_do_with_it(diagnosis):
    observe(diagnosis, finding("spike", 40), finding("exploding", 100, norm_growth=1e3))
    assert [span(f) for f in diagnosis.findings] == [
        ("spike", 40, 40, 1),
        ("exploding", 100, 100, 1),
    ]


def test_what_an_explosion_ends_in_names_it_as_the_cause(diagnosis):
    observe(
        diagnosis,
        finding("exploding", 3, norm_growth=1e3),
        finding("nonfinite", 4, everywhere=1.0),
        finding("dead_units", 12, dead_fraction=1.0),
        finding("vanishing", 20, learning_share=0.0),
    )
    exploding, nonfinite, dead = diagnosis.findings  # what vanished afterwards is no news
    assert "follows" not in exploding.cause
    assert nonfinite.cause.startswith("It follows from the explosion at step 3")
    assert dead.cause.startswith("It follows from the explosion at step 3")


def test_at_the_same_step_the_explosion_comes_first(diagnosis):
    told = observe(
        diagnosis, finding("nonfinite", 1, everywhere=1.0), finding("exploding", 1, norm=1e9)
    )
    assert told == {1: ["exploding", "nonfinite"]}
    assert [f.code for f in diagnosis.findings] == ["exploding", "nonfinite"]


def test_a_nan_long_after_an_explosion_is_one_of_its_own(diagnosis):
    observe(diagnosis, finding("exploding", 3), finding("nonfinite", 4000, everywhere=1.0))
    assert "follows" not in diagnosis.findings[1].cause


# ------------------------------------------------------------------ explanations


def test_a_loss_that_stays_where_it_was_is_told_where_nothing_else_explains_it(diagnosis):
    settled = finding("oscillating", 70, settled=1.0, step_length=0.2)
    assert diagnosis.observe([settled], 70)
    diagnosis.observe([finding("dead_units", 80)], 80)
    assert [f.code for f in diagnosis.findings] == ["dead_units"]


def test_what_a_detector_explains_itself_is_kept(diagnosis):
    own = Finding(
        "vanishing", Severity.WARNING, (), 3, 3, 1, {}, "Mine.", "Because.", ("Do this.",)
    )
    diagnosis.observe([own], 3)
    diagnosis.observe([replace(own, first_step=4, last_step=4)], 4)
    assert diagnosis.findings[0].cause == "Because."
    assert diagnosis.findings[0].remedies == ("Do this.",)


def test_facts_that_come_later_are_used(diagnosis):
    diagnosis.facts = ModelFacts(optimizers=("SGD",), learning_rates=(0.5,))
    [told] = diagnosis.observe([finding("exploding", 3, step_length=50.0)], 3)
    assert "(lr=0.5 at the start)" in told.cause
    assert told.remedies[0] == "Lower the learning rate: lr=0.005."


def test_unknown_codes_go_through_unexplained(diagnosis):
    [told] = diagnosis.observe([finding("my.code", 3)], 3)
    assert (told.cause, told.remedies) == ("", ())


# ------------------------------------------------------------------ state


def test_a_resumed_diagnosis_goes_on_where_it_was():
    deep = [1e-8, 1e-6, 1e-5, 1e-4, 1e-2, 1.0]
    run = train(150, lambda t: [g * 2.0 ** max(0, t - 120) for g in deep],
                loss=lambda t: 2.3 * 2.0 ** max(0, t - 120))  # fmt: skip

    def go(diagnosis, detectors, samples):
        return [
            told
            for s in samples
            for told in diagnosis.observe([f for d in detectors for f in d.update(s)], s.step)
        ]

    facts, whole_detectors, detectors = ModelFacts(), default_detectors(), default_detectors()
    whole = Diagnosis(facts)
    told = go(whole, whole_detectors, run)
    for stop in (0, 30, 124, 130):
        first, second, detectors = Diagnosis(facts), Diagnosis(facts), default_detectors()
        before = go(first, detectors, run[:stop])
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        after = go(second, detectors, run[stop:])
        assert before + after == told
        assert second.findings == whole.findings
    assert {"vanishing", "exploding"} <= {f.code for f in whole.findings}
