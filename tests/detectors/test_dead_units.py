"""Dead units: over a window of looks, by unit, and only where nothing is learnt."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from lightning_gradwatch.detectors import DeadUnits
from lightning_gradwatch.finding import Severity
from lightning_gradwatch.testing import make_flow, make_sample, rehearse, replay
from tests.detectors.runs import steps_of

PARAMETERS = {"fc.weight": 0.1, "head.weight": 1.0}


def look(step, active, **fields):
    flow = make_flow(
        {"fc": 0.1, "relu": 1.0, "head": 1.0}, kinds={"relu": "ReLU"}, active={"relu": active}
    )
    return make_sample(step, PARAMETERS, flow=flow, **fields)


def share(dead, units=20):
    return [i >= dead for i in range(units)]


def test_nan_statistics_say_nothing():
    sample = look(0, share(20))
    modules = replace(sample.flow.modules, never_active=np.full(3, math.nan))
    samples = [
        replace(sample, step=t, flow=replace(sample.flow, modules=modules)) for t in range(9)
    ]
    assert replay(DeadUnits(), samples) == []


@pytest.mark.parametrize(("dead", "found"), [(14, False), (15, True), (20, True)])
def test_from_three_quarters_on(dead, found):
    assert bool(replay(DeadUnits(), [look(t, share(dead)) for t in range(5)])) == found


@pytest.mark.parametrize(("gap", "found"), [(50, [100]), (5, [])])
def test_a_layer_that_dies_is_told_after_two_looks_if_they_lie_apart(gap, found):
    dead = [0, 20, 20]
    samples = [look(gap * t, share(dead[t])) for t in range(3)]
    assert steps_of(replay(DeadUnits(), samples)) == found


def test_a_unit_that_speaks_once_in_the_window_is_alive():
    shy = [share(19), share(19)[::-1], share(10)]
    assert replay(DeadUnits(), [look(t, shy[t % 3]) for t in range(30)]) == []


def test_it_is_told_until_the_next_look_and_names_the_layer_that_feeds_the_units():
    samples = [look(t, share(20)) for t in range(3)]
    samples += [make_sample(t, PARAMETERS) for t in range(3, 6)] + [look(6, share(0))]
    found = replay(DeadUnits(), samples)
    assert steps_of(found) == [2, 3, 4, 5]
    assert found[0].layers == ("fc",)
    assert "All of the units of relu" in found[0].summary
    assert found[0].evidence["born_dead"] == 1


def test_units_that_died_in_training_were_not_born_dead():
    samples = [look(t, share(0)) for t in range(5)] + [look(t, share(18)) for t in range(5, 10)]
    found = replay(DeadUnits(), samples)
    assert found[0].first_step == 7
    assert found[0].evidence["born_dead"] == 0


def test_behind_the_last_layer_nothing_is_looked_at():
    flow = make_flow({"fc": 1.0, "out": 1.0}, kinds={"out": "ReLU"}, active={"out": share(20)})
    samples = [make_sample(t, {"fc.weight": 1.0}, flow=flow) for t in range(9)]
    assert replay(DeadUnits(), samples) == []


def test_a_model_that_learns_all_the_same_is_only_told_so():
    flow = make_flow(
        {"fc": 0.1, "relu": 1.0, "head": 1.0},
        kinds={"relu": "ReLU"},
        active={"relu": share(18)},
        out_rms={"head": 5.0},
        vectors={"head": 4},
    )
    samples = [make_sample(t, PARAMETERS, flow=flow, loss=0.5) for t in range(5)]
    assert {f.severity for f in replay(DeadUnits(), samples)} == {Severity.INFO}


def test_a_network_born_dead_and_a_sound_one_really_trained():
    assert replay(DeadUnits(), rehearse("relu", bias=-20.0))[0].first_step == 2
    assert replay(DeadUnits(), rehearse("relu", depth=3)) == []


@pytest.mark.parametrize("bad", [{"fraction": 0.0}, {"fraction": 1.1}, {"patience": 0}])
def test_bad_arguments(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        DeadUnits(**bad)
