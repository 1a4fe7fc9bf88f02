"""Saturation: of inner activations, lasting, whatever the scale of the loss."""

from __future__ import annotations

import math

import pytest

from lightning_gradwatch.detectors import SaturatedActivation
from lightning_gradwatch.finding import Severity
from lightning_gradwatch.testing import make_flow, make_sample, rehearse, replay
from tests.detectors.runs import steps_of

PARAMETERS = {"fc.weight": 0.1, "head.weight": 1.0}


def look(step, share, loss=0.5, **fields):
    flow = make_flow(
        {"fc": 0.1, "act": 1.0, "head": 1.0, "prob": 1.0},
        kinds={"act": "Tanh", "prob": "Sigmoid"},
        saturated_fraction={"act": share, "prob": 1.0},
        **fields,
    )
    return make_sample(step, PARAMETERS, flow=flow, loss=loss)


@pytest.mark.parametrize(("share", "found"), [(math.nan, False), (0.75, False), (0.85, True)])
def test_from_four_fifths_on_and_not_at_the_output(share, found):
    samples = [look(t, share) for t in range(96, 105)]
    told = replay(SaturatedActivation(), samples)
    assert steps_of(told) == ([100, 101, 102, 103, 104] if found else [])


def test_one_look_is_not_enough():
    shares = [0.1, 0.99, 0.1, 0.1, 0.99, 0.99]
    found = replay(SaturatedActivation(), [look(t, s) for t, s in enumerate(shares)])
    assert steps_of(found) == [5]
    assert found[0].layers == ("fc",)
    assert found[0].evidence["born_saturated"] == 0


def test_saturated_from_the_start():
    found = replay(SaturatedActivation(), [look(t, 0.97) for t in range(5)])
    assert steps_of(found) == [2, 3, 4]
    assert found[0].evidence["born_saturated"] == 1
    assert "97 %" in found[0].summary


def test_a_model_that_learns_all_the_same_is_only_told_so():
    samples = [look(t, 0.97, out_rms={"head": 5.0}, vectors={"head": 4}) for t in range(5)]
    assert {f.severity for f in replay(SaturatedActivation(), samples)} == {Severity.INFO}


@pytest.mark.parametrize(("rate", "severity"), [(0.97, Severity.INFO), (1.0, Severity.WARNING)])
def test_a_loss_that_falls_shows_that_it_learns(rate, severity):
    samples = [look(t, 0.85, loss=rate**t) for t in range(120)]
    assert {f.severity for f in replay(SaturatedActivation(), samples)} == {severity}


def test_networks_really_trained():
    assert replay(SaturatedActivation(), rehearse("tanh", weight_scale=30.0))[0].first_step == 2
    assert replay(SaturatedActivation(), rehearse("tanh", depth=3)) == []


@pytest.mark.parametrize("bad", [{"fraction": 0.0}, {"fraction": 2}, {"patience": 0}])
def test_bad_arguments(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        SaturatedActivation(**bad)
