from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_gradwatch.detectors import GradientSpike
from lightning_gradwatch.finding import Severity
from lightning_gradwatch.testing import make_sample, replay
from tests.detectors.runs import steps_of


def noisy(steps, at=(), height=300.0, sigma=0.3, seed=0, **fields):
    rng = np.random.default_rng(seed)
    norms = np.exp(sigma * rng.normal(size=steps))
    return [
        make_sample(t, [norms[t] * (height if t in at else 1.0), 0.1], **fields)
        for t in range(steps)
    ]


def test_neither_nan_nor_inf_is_a_spike_or_hides_one():
    samples = noisy(100, at=(80,))
    for t in range(10, 80, 3):
        samples[t] = make_sample(t, [math.nan if t % 2 else math.inf, 0.1])
    assert steps_of(replay(GradientSpike(), samples)) == [80]


def test_a_spike_is_told_at_once_and_only_then():
    found = replay(GradientSpike(), noisy(200, at=(50, 120)))
    assert steps_of(found) == [50, 120]
    assert {f.severity for f in found} == {Severity.INFO}
    assert found[0].layers == ("layer0",)
    assert found[0].evidence["factor"] > 100
    assert found[0].evidence["z"] > 6
    assert found[0].evidence["norm"] == pytest.approx(
        found[0].evidence["median"] * found[0].evidence["factor"]
    )


@pytest.mark.parametrize("seed", range(10))
def test_noise_is_no_spike_however_wide(seed):
    assert replay(GradientSpike(), noisy(500, sigma=1.0, seed=seed)) == []


def test_a_new_level_is_told_for_a_few_steps_only():
    samples = [make_sample(t, [100.0 if t >= 50 else 1.0]) for t in range(200)]
    assert steps_of(replay(GradientSpike(longest=5), samples)) == [50, 51, 52, 53, 54]


def test_nothing_is_said_before_there_is_a_range():
    assert replay(GradientSpike(warmup=20), noisy(20, at=(10, 19))) == []


def test_an_overflow_under_a_scaler_is_none():
    assert replay(GradientSpike(), noisy(100, at=(60,), amp_overflow=True)) == []


def test_optimizers_have_ranges_of_their_own():
    samples = [make_sample(t, [1e6 if t % 2 else 1.0], optimizer=t % 2) for t in range(200)]
    assert replay(GradientSpike(), samples) == []


@pytest.mark.parametrize(
    "arguments", [{"z": 0}, {"factor": 1}, {"window": 5}, {"warmup": 1}, {"longest": 0}]
)
def test_arguments_out_of_range_are_refused(arguments):
    [name] = arguments
    with pytest.raises(ValueError, match=name):
        GradientSpike(**arguments)
