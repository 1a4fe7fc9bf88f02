from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_gradwatch.detectors import ExplodingGradient
from lightning_gradwatch.finding import Severity
from lightning_gradwatch.testing import make_sample, replay
from tests.detectors.runs import deliver, steps_of, train

FLAT = [1.0, 1.2, 0.9]


def late(grow, start=100, steps=None):
    """Calm for `start` steps, then norm and loss are multiplied by `grow` at each step."""

    def factor(t):
        return grow ** max(0, t - start + 1)

    steps = start + 20 if steps is None else steps
    return train(steps, lambda t: [g * factor(t) for g in FLAT], loss=lambda t: factor(t))


# ------------------------------------------------------------------ sick


def test_nan_does_not_blind_it():
    poisoned = [
        make_sample(t, [math.nan if t % 3 == 0 else 1.0], loss=math.nan if t % 3 == 0 else 1.0)
        for t in range(60)
    ]
    storm = [make_sample(60 + t, [10.0 ** (2 + t)], loss=10.0 ** (2 + t)) for t in range(4)]
    found = replay(ExplodingGradient(), poisoned + storm)
    assert steps_of(found) == [61, 62, 63]


def test_growth_from_the_very_first_step_is_found_within_two():
    # Plain gradient descent on a parabola at fifty times the largest stable learning rate.
    w, rate = 1.0, 100.0
    samples = []
    for t in range(6):
        gradient, loss = w, w * w / 2
        samples.append(
            make_sample(
                t,
                [abs(gradient)],
                loss=loss,
                weight_norm=[abs(w)],
                update_norm=[rate * abs(gradient)],
                descent=[rate * gradient**2],
            )
        )
        w -= rate * gradient
    found = replay(ExplodingGradient(), deliver(samples))
    assert steps_of(found) == [1, 2, 3, 4, 5]
    assert {f.severity for f in found} == {Severity.ERROR}
    assert found[0].evidence["step_length"] == pytest.approx(200.0)


@pytest.mark.parametrize("grow", [1.3, 3.0, 1e3])
def test_growth_late_in_the_run_is_found(grow):
    found = replay(ExplodingGradient(), late(grow))
    assert found
    assert steps_of(found)[0] <= 100 + math.ceil(math.log(30) / math.log(grow)) + 2
    assert steps_of(found)[-1] == 119


def test_slow_growth_is_found_although_it_widens_its_own_range():
    slow = train(400, lambda t: [1.04**t], loss=lambda t: 1.04 ** (2 * t))
    first = steps_of(replay(ExplodingGradient(), slow))[0]
    assert 80 < first < 130


def test_one_step_that_ends_in_inf_is_explained_by_its_length():
    samples = deliver(
        [
            make_sample(0, [1e8], loss=1e8, weight_norm=[8.0], update_norm=[1e6], descent=[1e14]),
            make_sample(1, [math.nan], loss=math.nan),
            make_sample(2, [math.nan], loss=math.nan),
        ]
    )
    [finding] = replay(ExplodingGradient(), samples)
    assert finding.first_step == 1
    assert finding.evidence == {"norm": 1e8, "step_length": pytest.approx(1e6)}
    assert "beyond what numbers can hold: its norm was 1e+08" in finding.summary


def test_growth_through_depth_is_found_at_initialisation():
    steep = [1e6, 1e5, 1e4, 3.0, 2.0, 1.0]
    found = replay(ExplodingGradient(), train(6, steep, lr=1e-12))
    assert steps_of(found) == [2, 3]
    assert found[0].layers == ("layer0", "layer1", "layer2")
    assert "on its way back" in found[0].summary


def test_the_sentence_says_what_the_evidence_holds():
    finding = replay(ExplodingGradient(), late(40.0))[0]
    assert finding.evidence["norm_growth"] == pytest.approx(
        finding.evidence["norm"] / finding.evidence["level"]
    )
    assert finding.evidence["loss_growth"] == pytest.approx(1600.0)
    assert "1,600 times the run's own level" in finding.summary
    assert finding.layers == ("layer0", "layer1", "layer2")


def test_a_fixed_limit_is_for_people_who_ask_for_one():
    samples = train(30, lambda t: [5.0 if t in (3, 17) else 1.0])
    assert replay(ExplodingGradient(), samples) == []
    found = replay(ExplodingGradient(max_norm=4.0), samples)
    assert steps_of(found) == [3, 17]
    assert found[0].summary == "The gradient norm is 5, above the limit of 4 that was set."


def test_without_a_loss_a_far_larger_norm_is_asked_for():
    def run(peak):
        return train(60, lambda t: [peak if t >= 50 else 1.0], loss=math.nan)

    assert replay(ExplodingGradient(), run(100.0)) == []
    assert steps_of(replay(ExplodingGradient(), run(1e4)))[0] == 51


# ------------------------------------------------------------------ healthy


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(lambda: train(300, FLAT), id="flat"),
        pytest.param(lambda: train(300, FLAT, scale=1e5), id="loss x 1e5"),
        pytest.param(lambda: late(1e3, steps=101), id="one spike at the end"),
        pytest.param(
            lambda: train(300, lambda t: [1e4 if t in (50, 150, 151 + 30) else 1.0],
                          loss=lambda t: 1e4 if t in (50, 150) else 1.0),
            id="spikes that recover",
        ),
        pytest.param(
            lambda: train(300, lambda t: [500.0 if t in (80, 84, 85) else 1.0],
                          loss=lambda t: 1e3 if t in (80, 84, 85) else 1.0),
            id="rare hard batches, two of them in a row",
        ),
        pytest.param(
            lambda: train(300, lambda t: [1e-3 * 1.05**t], loss=lambda t: 0.99**t),
            id="gradients grow while the loss falls",
        ),
        pytest.param(
            lambda: train(100, lambda t: [1e6 * 0.9**t], loss=lambda t: 1e9 * 0.9**t),
            id="large and falling",
        ),
        pytest.param(
            lambda: train(400, lambda t: [1.012**t], loss=lambda t: 0.01 * 1.013**t),
            id="an adversary gets stronger",
        ),
        pytest.param(
            lambda: train(400, lambda t: [1.0 + t], loss=lambda t: -0.001 - 0.1 * t),
            id="the loss is a score without a floor",
        ),
        pytest.param(lambda: train(100, lambda t: [0.0 if t % 2 else 1.0]), id="zero every other"),
    ],
)  # fmt: skip
def test_silent_on_healthy_runs(run):
    assert replay(ExplodingGradient(), run()) == []


@pytest.mark.parametrize("seed", range(40))
def test_silent_on_batches_of_one(seed):
    # The residual of one sample is anything from 0 up: norm and loss vary by decades.
    residuals = np.abs(np.random.default_rng(seed).normal(size=500))
    samples = train(500, lambda t: [residuals[t]], loss=lambda t: residuals[t] ** 2 / 2, lr=0.01)
    assert replay(ExplodingGradient(), samples) == []


def test_an_overflow_under_a_scaler_enters_nothing():
    calm = train(50, FLAT)
    overflow = [make_sample(50 + t, [math.inf], loss=1.0, amp_overflow=True) for t in range(10)]
    detector = ExplodingGradient()
    assert replay(detector, calm) == []
    before = detector.state_dict()
    assert replay(detector, overflow) == []
    assert detector.state_dict() == before


def test_a_short_last_window_is_not_taken_for_calm():
    # One of eight micro-batches: the gradient is an eighth, and so it is not.
    samples = train(60, [1.0], loss=1.0)
    detector = ExplodingGradient()
    replay(detector, samples)
    short = make_sample(60, [0.125], loss=1.0, accumulated=0.125)
    assert replay(detector, [short]) == []
    assert detector.state_dict()["0"]["calm"] == pytest.approx(0.0)


def test_each_optimizer_has_its_own_range():
    small = train(60, [1.0, None], loss=1.0)
    large = train(60, [None, 1e6], loss=1e6, optimizer=1)
    assert replay(ExplodingGradient(), [s for p in zip(small, large, strict=True) for s in p]) == []


# ------------------------------------------------------------------ life


def test_a_level_that_lasts_becomes_the_runs_own():
    raised = train(400, lambda t: [1e3 if t >= 100 else 1.0], loss=lambda t: 1e3 if t >= 100 else 1)
    detector = ExplodingGradient()
    replay(detector, raised)
    assert len(detector.state_dict()["0"]["norms"]) <= 64
    assert detector.state_dict()["0"]["norms"][-1] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_norm": 0}, "max_norm must be a finite number > 0, got 0"),
        ({"max_norm": math.nan}, "got nan"),
        ({"factor": 1}, "factor"),
        ({"loss_factor": 0.5}, "loss_factor"),
        ({"step_length": 1.0}, "step_length"),
        ({"elasticity": -3}, "elasticity"),
        ({"window": 3}, "window must be >= 10, got 3"),
    ],
)
def test_thresholds_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ExplodingGradient(**arguments)


def test_a_threshold_that_is_no_number_is_refused():
    with pytest.raises(TypeError, match="max_norm must be a number, got '10'"):
        ExplodingGradient(max_norm="10")
