"""Oscillation: climbs of the loss that add up, with long steps; spikes and noise do not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_gradwatch.detectors import Oscillating
from lightning_gradwatch.testing import deliver, make_flow, make_sample, rehearse, replay


def run(losses, length=0.5, force=None):
    flow = None
    if force is not None:
        flow = make_flow({"head": force * losses[0]}, out_rms={"head": 1.0}, vectors={"head": 1})
    return deliver(
        [
            make_sample(
                t, {"head.weight": 1.0}, weight_norm=[1.0], descent=[length * abs(loss)],
                loss=loss, flow=flow,
            )
            for t, loss in enumerate(losses)
        ]
    )  # fmt: skip


def swing(height, steps=200, period=16):
    wave = [1.5 + height * math.sin(2 * math.pi * t / period) ** 2 for t in range(steps)]
    return [2.0] * 10 + wave


def test_nan_losses_neither_raise_nor_hide_it():
    losses = [math.nan if t % 9 == 0 else x for t, x in enumerate(swing(3.0))]
    assert replay(Oscillating(), run(losses))


@pytest.mark.parametrize(("height", "found"), [(0.2, False), (4.0, True)])
def test_climbs_add_up(height, found):
    assert bool(replay(Oscillating(), run(swing(height)))) == found


@pytest.mark.parametrize(
    ("level", "length", "force", "found"),
    [
        (2.1, 0.2, 0.5, True),
        (1.6, 0.2, 0.5, False),
        (2.1, 1e-3, 0.5, False),
        (2.1, 0.2, 9.0, False),
    ],
)
def test_long_steps_that_leave_the_loss_where_it_began(level, length, force, found):
    losses = [2.0, *(6.0 - 0.1 * t for t in range(30)), *[level] * 100]
    told = replay(Oscillating(), run(losses, length, force))
    assert bool(told) == found
    if found:
        assert "from 2 at the start" in told[0].summary
        assert "climb" not in told[0].evidence


def test_what_only_looks_like_it():
    rng = np.random.default_rng(0)
    spikes = [2.0 * 0.99**t + (50.0 if t in (60, 61, 120) else 0.0) for t in range(200)]
    noise = (2.0 * np.exp(-0.02 * np.arange(200)) * rng.lognormal(0, 0.5, 200)).tolist()
    assert replay(Oscillating(), run(spikes)) == []
    assert replay(Oscillating(), run(noise)) == []
    assert replay(Oscillating(), run(swing(4.0), length=1e-4)) == []
    assert replay(Oscillating(), run(swing(4.0), force=30.0)) == []
    assert replay(Oscillating(), run([-x for x in swing(4.0)])) == []


def test_a_network_really_trained():
    assert replay(Oscillating(), rehearse("tanh", depth=3)) == []


@pytest.mark.parametrize("bad", [{"climb": 0}, {"step_length": 0}, {"sustained": 0}])
def test_bad_arguments(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Oscillating(**bad)
