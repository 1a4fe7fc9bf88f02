"""Causes and remedies fit the model: nobody is told to use what he has, or what never helped."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import pytest

from lightning_gradwatch.diagnosis import Diagnosis
from lightning_gradwatch.diagnosis.case import Case
from lightning_gradwatch.diagnosis.causes import CAUSES, cause_of
from lightning_gradwatch.diagnosis.remedies import REMEDIES, remedies_for
from lightning_gradwatch.facts import ModelFacts
from lightning_gradwatch.finding import Finding, Severity

DEPTH = {"learning_share": 1e-9, "first_over_last": 1e-8, "layers": 9.0}
ZERO = {"learning_share": 0.0, "zero_layers": 3.0, "layers": 9.0}
TIME = {"time_ratio": 1e-12, "time_steps": 64.0}
GROWTH = {"norm_growth": 1e4, "step_length": 200.0}
STEEP = {"early_elasticity": 1e5, "late_elasticity": 1.0}
LAYERS = ("net.0", "net.2", "net.4")


def facts(
    activation=None, gain=0.58, norms=(), optimizer="SGD", recurrent=None, layers=LAYERS, **more
):
    return ModelFacts(
        activations={} if activation is None else {activation: ("net.1", "net.3")},
        normalisations=tuple(norms),
        recurrent={} if recurrent is None else {"rnn": recurrent},
        init_gain=dict.fromkeys(layers, gain),
        optimizers=(optimizer,),
        learning_rates=(0.1,),
        parameters=1000,
        **more,
    )


#: Outputs that are far too large before anything was learnt.
BLOWN_UP = {"forward_growth": 5e4, "output": 5e4, "loss": 1e9, "step": 0.0}


def explain(code, evidence, model, layers=LAYERS):
    found = Finding(code, Severity.ERROR, tuple(layers), 5, 5, 1, evidence, "It is so.")
    [told] = Diagnosis(model).observe([found], 5)
    return told.cause, told.remedies


@pytest.mark.parametrize(
    ("evidence", "model", "words"),
    [
        (DEPTH, facts("Sigmoid"), "sigmoid's slope is at most 1/4"),
        (DEPTH, facts("Tanh", gain=1.0), "slope of Tanh is below 1"),
        (DEPTH, facts("Tanh", gain=8.0), "std × √fan_in = 8; about 1 is usual"),
        (DEPTH, facts("ReLU", gain=0.08), "too small (std × √fan_in = 0.08"),
        (DEPTH, facts("ReLU"), "cut off by ReLU"),
        (ZERO, facts("ReLU", gain=1.41), "dead ReLUs"),
        (ZERO, facts("Tanh", gain=1.0), "flat parts"),
        (DEPTH, facts("GELU", gain=1.0), "multiplies the signal by a factor below one"),
        (TIME, facts(recurrent="RNN(tanh)"), "recurrent weights of RNN(tanh)"),
        (TIME, facts(recurrent="LSTM"), "forget gates half open"),
        (TIME, facts(recurrent="GRU"), "update gates half open"),
    ],
)
def test_cause_of_vanishing(evidence, model, words):
    layers = ("rnn",) if "time_ratio" in evidence else LAYERS
    assert words in explain("vanishing", evidence, model, layers)[0]


@pytest.mark.parametrize(
    ("evidence", "model", "words"),
    [
        (GROWTH, facts("ReLU", gain=1.41), "one step promised to lower the loss by 2e+02 times"),
        (GROWTH, facts("ReLU", gain=8.0), "initial weights are too large (std × √fan_in = 8"),
        (GROWTH, facts(gain=0.5, layers=("linear",), input_rms=1.0), "probably not standardised"),
        (
            GROWTH,
            facts(gain=0.5, layers=("head",)),
            "learning rate (lr=0.1 at the start) is too high",
        ),
        (GROWTH, facts("ReLU", target_size=1e5), "outputs would have to be as large as 1e+05"),
        (BLOWN_UP, facts(recurrent="RNN(relu)"), "for every time step, and their factor is above"),
        (STEEP, facts(recurrent="RNN(tanh)"), "for every time step, and their factor is above one"),
        ({"norm": 9.0, "max_norm": 3.0}, facts("ReLU"), "limit was set by hand"),
    ],
)
def test_cause_of_exploding(evidence, model, words):
    assert words in explain("exploding", evidence, model)[0]


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        ({"loss_is_finite": 0.0, "everywhere": 1.0, "layers": 3.0}, "forward pass or the loss"),
        ({"loss_is_finite": 1.0, "everywhere": 1.0, "layers": 3.0}, "its derivative is not"),
        ({"loss_is_finite": 1.0, "everywhere": 0.0, "layers": 3.0}, "just behind net.4"),
        ({"loss_is_finite": 0.0, "everywhere": 0.0, "layers": 0.0}, "The loss overflowed"),
        ({"loss_is_finite": 1.0, "everywhere": 1.0, "overflows": 21.0}, "loss scale"),
    ],
)
def test_cause_of_nonfinite(evidence, words):
    assert words in explain("nonfinite", evidence, facts())[0]


def every_model():
    for activation, gain, norms, optimizer, recurrent in product(
        (None, "Sigmoid", "Tanh", "ReLU", "GELU"),
        (0.05, 0.58, 1.41, 30.0),
        ((), ("net.norm",)),
        ("SGD", "Adam"),
        (None, "RNN(tanh)", "RNN(relu)", "LSTM", "GRU"),
    ):
        yield facts(activation, gain, norms, optimizer, recurrent)


@pytest.mark.parametrize("evidence", [DEPTH, ZERO, TIME])
def test_against_vanishing_neither_learning_rate_nor_clipping_is_advised(evidence):
    for model in every_model():
        advice = " ".join(explain("vanishing", evidence, model)[1])
        assert not re.search("clip|learning rate|lr=", advice, re.IGNORECASE)


def test_nobody_is_told_to_use_what_he_has():
    for model in every_model():
        depth = " ".join(explain("vanishing", DEPTH, model)[1])
        growth = " ".join(explain("exploding", GROWTH, model)[1])
        in_time = " ".join(explain("vanishing", TIME, model, ("rnn",))[1])
        if "ReLU" in model.activations:
            assert "nn.ReLU() instead" not in depth
        if model.normalisations:
            assert "Normalise" not in depth + growth
        if "Adam" in model.optimizers:
            assert "Use Adam" not in growth
        if set(model.recurrent.values()) & {"LSTM", "GRU"}:
            assert "nn.LSTM" not in in_time


def test_the_best_remedies_come_first():
    assert explain("vanishing", DEPTH, facts("Sigmoid"))[1][0].startswith("Normalise")
    assert "residual" in explain("vanishing", DEPTH, facts("Sigmoid"))[1][1]
    growth = explain("exploding", GROWTH, facts("ReLU", gain=1.41))[1]
    assert growth[0] == "Lower the learning rate: lr=0.0005."  # 0.1 / 200
    assert growth[1].startswith("Use Adam")
    assert explain("exploding", GROWTH, facts("ReLU", gain=9.0))[1][0].startswith("Smaller initial")


def test_every_sentence_can_be_filled_for_every_model():
    evidences = {
        "vanishing": [DEPTH, ZERO],
        "vanishing in time": [TIME],
        "exploding": [GROWTH, STEEP, {"norm": 1.0}],
        "nonfinite": [{"everywhere": 1.0, "loss_is_finite": 0.0}, {"layers": 1.0}],
        "spike": [{"median": 0.2}, {}],
        "no_gradient": [{}],
        "dead_units": [{"dead_fraction": 0.9, "born_dead": born} for born in (0.0, 1.0)],
        "saturated": [{"saturated_fraction": 0.9, "born_saturated": born} for born in (0.0, 1.0)],
        "stalled": [
            {"left_out_share": 0.9, "lr_now": 1e-3, "first_lr": 1e-3, "peak_lr": 1e-3},
            {
                "steps_needed": 1e4,
                "too_short": 300.0,
                "lr_now": 1e-5,
                "first_lr": 1e-6,
                "peak_lr": 1e-5,
            },
            {"step_length": 0.0, "lr_now": 1e-9, "first_lr": 1.0, "peak_lr": 1.0},
        ],
        "oscillating": [{"climb": 3.0}],
    }
    assert set(evidences) == set(CAUSES) == set(REMEDIES)
    for model in [*every_model(), ModelFacts()]:
        for kind, cases in evidences.items():
            for evidence in cases:
                found = Finding(kind.split()[0], Severity.ERROR, (), 5, 5, 1, evidence)
                case = Case(found, model)
                remedies = remedies_for(case, kind)
                assert cause_of(case, kind).endswith(".")
                assert 1 <= len(remedies) <= 4
                assert len(set(remedies)) == len(remedies)
                assert all(r.rstrip().endswith(".") for r in remedies)


@pytest.mark.parametrize(
    ("code", "evidence", "model", "first"),
    [
        ("dead_units", {"born_dead": 1.0}, facts("ReLU", gain=0.0), "Start from weights that are"),
        ("dead_units", {"born_dead": 1.0}, facts("ReLU", gain=1.4), "Normalise"),
        ("dead_units", {"born_dead": 0.0}, facts("ReLU", gain=1.4), "Lower the learning rate"),
        ("saturated", {"born_saturated": 1.0}, facts("Tanh", gain=9.0), "Smaller initial"),
        ("saturated", {"born_saturated": 0.0}, facts("Tanh", gain=1.0), "Lower the learning rate"),
        ("stalled", {"left_out_share": 1.0}, facts(), "Give the optimizer all parameters"),
        ("stalled", {"lr_now": 1e-9, "peak_lr": 0.1}, facts(), "Let the schedule last"),
        ("stalled", {"lr_now": 0.1, "first_lr": 1e-4}, facts(), "Shorten the schedule's start"),
        ("stalled", {"lr_now": 0.1, "too_short": 1e4}, facts(), "Use Adam"),
        ("stalled", {"lr_now": 1e-5, "too_short": 30.0}, facts(optimizer="Adam"),
         "Raise the learning rate: lr=0.0003."),
        ("oscillating", {}, facts(), "Lower the learning rate"),
        ("exploding", {"lr_growth": 50.0, "lr_calm": 0.1, "lr_now": 5.0}, facts(), "Keep the sch"),
        ("vanishing", DEPTH | {"weights_left": 1e-5},
         replace(facts("ReLU"), weight_decays=(1.0,)), "Lower the weight decay"),
        ("saturated", {"born_saturated": 1.0}, replace(facts("Tanh"), input_rms=40.0),
         "Standardise the inputs"),
    ],
)  # fmt: skip
def test_the_first_remedy_is_the_one_for_this_case(code, evidence, model, first):
    assert explain(code, evidence, model)[1][0].startswith(first)


def test_stalling_is_no_news_where_something_else_explains_it():
    diagnosis = Diagnosis(facts())
    stalled = Finding("stalled", Severity.WARNING, (), 5, 5, 1, {"step_length": 1e-5})
    [told] = diagnosis.observe([stalled], 5)
    assert told.code == "stalled"
    diagnosis.observe([Finding("dead_units", Severity.WARNING, (), 9, 9, 1, {})], 9)
    assert [f.code for f in diagnosis.findings] == ["dead_units"]
    assert diagnosis.observe([replace(stalled, severity=Severity.ERROR)], 10) == []


def test_what_heals_an_explosion_heals_what_it_left_behind():
    diagnosis = Diagnosis(facts("ReLU", target_size=1e5, optimizer="SGD"))
    explosion = Finding("exploding", Severity.ERROR, LAYERS, 5, 5, 1, GROWTH, "It explodes.")
    dead = Finding("dead_units", Severity.WARNING, LAYERS[:1], 8, 8, 1, {}, "They are dead.")
    diagnosis.observe([explosion], 5)
    diagnosis.observe([dead], 8)
    first, then = diagnosis.findings
    assert first.remedies[0] == "Standardise the targets: y = (y - y.mean(0)) / y.std(0)."
    assert then.remedies[0] == first.remedies[0]
    assert then.cause.startswith("It follows from the explosion at step 5")


def test_one_explosion_of_two_optimizers_that_share_a_loss():
    diagnosis = Diagnosis(ModelFacts(optimizers=("Adam", "Adam"), learning_rates=(0.002, 30.0)))
    for optimizer, step in ((1, 2), (0, 3), (0, 50)):
        evidence = {**GROWTH, "optimizer": float(optimizer)}
        found = Finding("exploding", Severity.ERROR, (), step, step, 1, evidence, "It explodes.")
        diagnosis.observe([found], step)
    [found] = diagnosis.findings
    assert found.evidence["optimizer"] == 1
    assert found.remedies[0] == "Lower the learning rate: lr=0.001."


def test_what_was_wrong_from_the_start_is_not_outdone_by_what_followed():
    diagnosis = Diagnosis(facts("ReLU", gain=8.0))
    for step, evidence in ((0, BLOWN_UP), (2, GROWTH)):
        found = Finding("exploding", Severity.ERROR, LAYERS, step, step, 1, evidence, f"At {step}.")
        diagnosis.observe([found], step)
    [found] = diagnosis.findings
    assert (found.summary, found.first_step, found.last_step) == ("At 0.", 0, 2)


def test_transformers_that_normalise_afterwards():
    model = facts("GELU", norms=("norm1",), post_norm=("blocks.0",), residual=True)
    cause, remedies = explain("vanishing", {"learning_share": 1e-6, "layers": 9.0}, model)
    assert "norm_first=False" in cause
    assert "norm_first=True" in remedies[0]
    assert not [r for r in remedies if "residual" in r]


def test_the_first_forward_pass_outgrows_a_float():
    evidence = {"step": 0.0, "largest_input": 5e34, "out_of_range": 3.4e38, "culprit_loss": 1.0}
    cause, remedies = explain("nonfinite", evidence, facts(recurrent="RNN(relu)"))
    assert "outgrows what a float can hold" in cause
    assert "orthogonal" in remedies[0]
    cause, remedies = explain("nonfinite", evidence, facts("ReLU"))
    assert "initial weights or inputs" in cause
    assert "Initialise" in remedies[0]
