from __future__ import annotations

import math

import pytest

from lightning_gradwatch.detectors import NoGradient
from lightning_gradwatch.finding import Severity
from lightning_gradwatch.testing import make_sample, replay
from tests.detectors.runs import steps_of

USED, UNUSED = {"a.weight": 1.0, "a.bias": 1.0}, {"old.weight": None, "old.bias": None}


def test_nan_is_a_gradient():
    samples = [make_sample(t, {"a.weight": math.nan}) for t in range(50)]
    assert replay(NoGradient(), samples) == []


def test_told_once_with_the_names():
    found = replay(NoGradient(patience=20), [make_sample(t, USED | UNUSED) for t in range(200)])
    assert steps_of(found) == [19]
    assert found[0].severity is Severity.INFO
    assert found[0].layers == ("old",)
    assert found[0].evidence == {"parameters": 2, "elements": 200, "steps": 20}
    assert found[0].summary == "old.weight and old.bias have had no gradient in 20 steps."


def test_one_gradient_is_enough():
    samples = [make_sample(t, USED | ({"old.weight": 1.0} if t == 7 else {"old.weight": None}))
               for t in range(100)]  # fmt: skip
    assert replay(NoGradient(), samples) == []


def test_with_two_optimizers_only_what_neither_serves_is_told():
    generator = {"g.weight": 1.0, "d.weight": None, "lost.weight": None}
    critic = {"g.weight": None, "d.weight": 1.0, "lost.weight": None}
    samples = [
        make_sample(t, critic if t % 5 else generator, optimizer=int(t % 5 > 0)) for t in range(100)
    ]
    [finding] = replay(NoGradient(), samples)
    assert finding.layers == ("lost",)


def test_parameters_that_join_later_get_their_own_time():
    before = [make_sample(t, USED) for t in range(50)]
    joined = [make_sample(50 + t, USED | {"new.weight": None}) for t in range(50)]
    assert steps_of(replay(NoGradient(patience=20), before + joined)) == [69]


def test_a_new_order_of_layers_tells_nothing_twice():
    one = [make_sample(t, UNUSED | USED) for t in range(30)]
    other = [make_sample(30 + t, USED | UNUSED) for t in range(60)]
    assert steps_of(replay(NoGradient(), one + other)) == [19]


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="patience must be >= 1, got 0"):
        NoGradient(patience=0)
