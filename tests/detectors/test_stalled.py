"""Stalling: steps that promise nothing, weights that no optimizer holds; and what only looks so."""

from __future__ import annotations

import math

import pytest

from lightning_gradwatch.detectors import Stalled
from lightning_gradwatch.testing import deliver, make_flow, make_sample, rehearse, replay


def run(steps=200, length=1e-6, agreement=0.9, loss=2.0, lr=1e-6, force=None, parameters=None):
    """Steps that promise `length` of the loss each; functions of the step where they vary."""

    def at(value, t):
        return value(t) if callable(value) else value

    flow = None
    if force is not None:
        flow = make_flow({"head": force * loss}, out_rms={"head": 1.0}, vectors={"head": 1})
    samples = []
    for t in range(steps):
        grads = parameters or {"head.weight": 1.0}
        samples.append(
            make_sample(
                t, grads, weight_norm=[1.0] * len(grads), update_norm=[1e-9] * len(grads),
                descent=[at(length, t) * at(loss, t)] + [0.0] * (len(grads) - 1),
                loss=at(loss, t), lr=at(lr, t), agreement=at(agreement, t), flow=flow,
            )
        )  # fmt: skip
    return deliver(samples)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_a_number_is_no_symptom(bad):
    assert replay(Stalled(), run(length=bad)) == []
    assert replay(Stalled(), run(loss=lambda t: bad if t % 2 else 2.0, length=bad)) == []


def test_steps_that_promise_nothing():
    found = replay(Stalled(), run())
    assert found[0].first_step == 49
    assert found[0].evidence["too_short"] == pytest.approx(0.03 / 1e-6)
    assert found[0].evidence["lr_now"] == 1e-6


@pytest.mark.parametrize(
    "sound",
    [
        {"length": 0.01},
        {"length": 5e-4, "agreement": 0.05},  # it has arrived: batches pull in all directions
        {"loss": lambda t: 2.0 * 0.98**t},
        {"force": 30.0},  # trained before
        {"loss": lambda t: -1.0 + 0.001 * (t % 7)},  # a loss without a zero to fall to
    ],
)
def test_what_only_looks_like_it(sound):
    assert replay(Stalled(), run(**sound)) == []


def test_short_steps_that_agree():
    assert replay(Stalled(), run(length=5e-4, agreement=0.8))


def test_a_warm_up_is_given_more_time():
    rising = {"lr": lambda t: 1e-5 * (t + 1)}
    assert replay(Stalled(), run(**rising))[0].first_step >= 99
    assert replay(Stalled(), run(length=5e-4, **rising)) == []


def test_parameters_that_no_optimizer_holds():
    served = {"head.bias": 1.0, "fc.weight": None, "fc.bias": None}
    found = replay(Stalled(), run(length=0.01, parameters=served))
    assert found[0].evidence["left_out_share"] == pytest.approx(2 / 3)
    assert "never had a step" in found[0].summary


def test_no_parameter_at_all_ever_moves():
    samples = [make_sample(t, [None, None], loss=2.0) for t in range(200)]
    found = replay(Stalled(), samples)
    assert found[0].evidence["left_out_share"] == 1.0


def test_a_head_that_learns_on_a_resting_trunk_is_sound():
    served = {"head.weight": 1.0, "trunk.weight": None, "stem.weight": None}
    falling = run(length=0.01, parameters=served, loss=lambda t: 2.0 * 0.99**t)
    assert replay(Stalled(), falling) == []


def test_networks_really_trained():
    assert replay(Stalled(), rehearse("relu", depth=3, lr=1e-6))
    assert replay(Stalled(), rehearse("relu", depth=3)) == []


@pytest.mark.parametrize(
    "bad", [{"step_length": 0}, {"agreement": 1.0}, {"fallen": 0}, {"warmup": 0}]
)
def test_bad_arguments(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Stalled(**bad)
