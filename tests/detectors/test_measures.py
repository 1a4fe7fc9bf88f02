"""The numbers that detectors judge by, against hand calculation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_gradwatch.detectors.depth import Before, read_depth, step_length
from lightning_gradwatch.detectors.time_profile import read_time
from lightning_gradwatch.sample import TimeProfile
from lightning_gradwatch.testing import make_sample


def reading_of(grads, weights, descent, loss=2.0):
    sample = make_sample(0, grads, weight_norm=weights, descent=descent, loss=loss)
    return read_depth(Before.of(sample), sample)


def test_share_and_elasticity():
    reading = reading_of([0.1, 0.2, 1.0, 2.0], [10.0, 10.0, 5.0, 5.0], [1.0, 2.0, 3.0, 4.0])
    assert reading is not None
    assert reading.share == pytest.approx(0.3)
    assert reading.elasticity == pytest.approx([0.5, 1.0, 2.5, 5.0])
    assert reading.early_elasticity == pytest.approx(0.75)
    assert reading.late_elasticity == pytest.approx(5.0)
    assert reading.early_gradient == pytest.approx(0.1)


def test_biases_count_in_the_share_and_not_in_the_elasticity():
    named = {"a.weight": 1.0, "a.bias": 100.0, "b.weight": 1.0, "norm.bias": 7.0}
    reading = reading_of(named, [1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 4.0, 3.0], loss=1.0)
    assert reading is not None
    assert reading.layers == ("a", "b")
    assert reading.elasticity == pytest.approx([1.0, 1.0])
    assert reading.share == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("grads", "weights", "descent"),
    [
        ([1.0], [1.0], [1.0]),
        ([1.0, 1.0], [1.0, 1.0], [0.0, 0.0]),
        ([math.nan, 1.0], [1.0, 1.0], [1.0, 1.0]),
        ([1.0, None], [1.0, 1.0], [1.0, 1.0]),
    ],
)
def test_a_step_that_says_nothing(grads, weights, descent):
    assert reading_of(grads, weights, descent) is None


def test_step_length_is_the_promised_decrease_over_the_loss():
    sample = make_sample(0, [1.0, 1.0], weight_norm=[1.0, 1.0], descent=[2.0, 6.0], loss=-4.0)
    assert sample.update is not None
    assert step_length(Before.of(sample), sample.update) == pytest.approx(2.0)
    unknown = make_sample(0, [1.0, 1.0])
    assert math.isnan(step_length(Before.of(unknown), sample.update))


@pytest.mark.parametrize(
    ("norms", "ratio"),
    [
        (np.full(20, 3.0), 1.0),
        (np.r_[np.zeros(10), np.ones(10)], 0.0),
        (np.logspace(-200, 200, 100), 1e-364),
        (np.ones(9), None),
        (np.zeros(20), None),
        (np.r_[np.ones(19), np.nan], None),
    ],
)
def test_time_ratio(norms, ratio):
    reading = read_time(TimeProfile("rnn", norms))
    assert (reading is None) == (ratio is None)
    if reading is not None:
        assert reading.ratio == pytest.approx(ratio, rel=1e-6, abs=1e-300)
