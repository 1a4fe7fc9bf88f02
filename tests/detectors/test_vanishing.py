from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from lightning_gradwatch.detectors import VanishingGradient
from lightning_gradwatch.finding import Severity
from lightning_gradwatch.layers import Layout
from lightning_gradwatch.testing import make_sample, replay
from tests.detectors.runs import deliver, in_time, steps_of, train

DEEP = [1e-8, 1e-6, 1e-5, 1e-4, 1e-2, 1.0]
FLAT = [1.0, 0.8, 1.2, 0.9, 1.1, 1.0]


# ------------------------------------------------------------------ sick


def test_nan_neither_raises_the_alarm_nor_hides_it():
    nan, inf = [math.nan] * 6, [math.inf] * 6
    sick = train(60, lambda t: nan if t in (3, 20) else inf if t == 6 else DEEP)
    healthy = train(60, lambda t: nan if t % 2 else FLAT)
    assert replay(VanishingGradient(), healthy) == []
    assert steps_of(replay(VanishingGradient(), sick))[-1] == 59


def test_depth_is_found_within_the_first_measured_steps_and_then_at_every_step():
    found = replay(VanishingGradient(), train(200, DEEP))
    assert steps_of(found) == list(range(5, 200))
    assert {f.code for f in found} == {"vanishing"}
    assert all(f.first_step == f.last_step and f.count == 1 for f in found)


def test_a_warning_becomes_an_error_when_it_lasts():
    found = replay(VanishingGradient(sustained=30), train(60, DEEP))
    severities = {f.first_step: f.severity for f in found}
    assert severities[5] is severities[34] is Severity.WARNING
    assert severities[35] is severities[59] is Severity.ERROR


def test_the_sentence_says_what_the_evidence_holds():
    [finding, *_] = replay(VanishingGradient(), train(20, DEEP))
    assert finding.layers == ("layer0", "layer1", "layer2", "layer3")
    assert finding.evidence["first_over_last"] == pytest.approx(1e-8)
    assert finding.evidence["factor_per_layer"] == pytest.approx(1e-8 ** (1 / 5))
    assert finding.evidence["layers"] == 6
    assert finding.summary == (
        "The error signal dies on its way back: layer0 receives 1e-08 of the gradient that layer5 "
        "does (×0.025 per layer over 6 layers)."
    )


def test_a_gradient_of_exactly_zero_counts_in_two_layers_too():
    found = replay(VanishingGradient(), train(20, [0.0, 1.0]))
    assert steps_of(found)[0] == 5
    assert found[0].layers == ("layer0",)
    assert "receives a gradient of exactly 0, while layer1 receives 1." in found[0].summary


def test_it_ends_when_the_early_layers_learn_again():
    recovering = train(301, lambda t: DEEP if t < 150 else FLAT)
    found = replay(VanishingGradient(), recovering)
    assert steps_of(found)[-1] == 150  # step 150 is measured, and known at step 151


def test_a_collapse_late_in_the_run_is_found():
    found = replay(VanishingGradient(), train(600, lambda t: FLAT if t < 150 else DEEP))
    assert 150 < steps_of(found)[0] <= 301
    assert steps_of(found)[-1] == 599


def test_without_a_loss_early_and_late_layers_are_compared():
    assert replay(VanishingGradient(), train(20, DEEP, loss=math.nan))
    assert not replay(VanishingGradient(), train(20, FLAT, loss=math.nan))


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_any_norm_will_do(norm_type):
    assert replay(VanishingGradient(), train(20, DEEP, norm_type=norm_type))
    assert not replay(VanishingGradient(), train(20, FLAT, norm_type=norm_type))


def test_each_optimizer_is_judged_by_its_own_samples():
    sick = train(40, [*DEEP, None, None, None], optimizer=1)
    healthy = train(40, [None] * 6 + [1.0, 1.0, 1.0])
    samples = [s for pair in zip(sick, healthy, strict=True) for s in pair]
    # The aftermath of one optimizer's step arrives with the next sample, which is the other's.
    samples = deliver_across(samples)
    found = replay(VanishingGradient(), samples)
    assert found
    assert {f.evidence["optimizer"] for f in found} == {1.0}
    assert not {"layer6", "layer7", "layer8"} & set(found[0].layers)


def deliver_across(samples):
    updates = {(s.update.step, s.update.optimizer): s.update for s in samples if s.update}
    out, due = [], None
    for sample in samples:
        out.append(replace(sample, update=due))
        due = updates.get((sample.step, sample.optimizer))
    return out


# ------------------------------------------------------------------ healthy


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(lambda: train(200, FLAT), id="flat"),
        pytest.param(lambda: train(200, FLAT, scale=1e-6), id="loss x 1e-6"),
        pytest.param(lambda: train(200, FLAT, scale=1e5), id="loss x 1e5"),
        pytest.param(lambda: train(200, [1.0]), id="one layer"),
        pytest.param(lambda: train(200, [1e-4, 1.0]), id="two layers"),
        pytest.param(lambda: train(200, FLAT, lr=0.0), id="learning rate 0"),
        pytest.param(lambda: train(200, FLAT, lr=lambda t: 0.001 * t), id="warm-up from 0"),
        pytest.param(lambda: train(200, FLAT, lr=lambda t: max(0, 100 - t) / 100), id="ends at 0"),
        pytest.param(lambda: train(200, FLAT, lr=1e-9), id="tiny learning rate"),
        pytest.param(
            lambda: train(400, lambda t: [g * 0.97**t for g in FLAT], loss=lambda t: 0.97**t),
            id="converges",
        ),
        pytest.param(lambda: train(200, [None, None, *FLAT]), id="frozen"),
        pytest.param(
            lambda: train(200, lambda t: [1e-5 * t] * 5 + [1.0]), id="zero-initialised head"
        ),
        pytest.param(
            lambda: train(200, lambda t: [0.0 if t == 0 else 1e-4 * t] * 5 + [1.0]),
            id="zero-initialised gates",
        ),
    ],
)
def test_silent_on_healthy_runs(run):
    assert replay(VanishingGradient(), run()) == []


def test_early_layers_with_a_tiny_learning_rate_of_their_own_are_healthy():
    samples = train(100, FLAT)
    slow = [
        replace(s, update=replace(s.update, descent=s.update.descent * ([1e-7] * 3 + [1.0] * 3)))
        if s.update
        else s
        for s in samples
    ]
    assert replay(VanishingGradient(), slow) == []


def test_a_bias_before_batchnorm_has_no_gradient_by_right():
    named = {}
    for i in range(6):
        named |= {f"conv{i}.weight": 1.0, f"conv{i}.bias": 1e-9}
    samples = deliver([make_sample(t, named, weight_norm=[5.0] * 12, loss=2.3) for t in range(100)])
    assert replay(VanishingGradient(), samples) == []


# ------------------------------------------------------------------ time


def test_time_is_found_once_the_profile_has_stayed_flat():
    found = replay(VanishingGradient(), in_time(220, 1e-12))
    assert steps_of(found) == list(range(50, 220))
    assert found[0].severity is Severity.WARNING
    assert found[-1].severity is Severity.ERROR
    assert found[0].layers == ("rnn",)
    assert "back through time: in rnn, the first 6 of 64 time steps receive" in found[0].summary
    assert found[0].evidence["time_steps"] == 64
    assert 0.6 < found[0].evidence["factor_per_time_step"] < 0.7


def test_a_profile_that_is_flat_for_three_looks_is_found_at_the_third():
    found = replay(VanishingGradient(), in_time(220, 2e-6))
    assert steps_of(found) == list(range(150, 220))


@pytest.mark.parametrize(
    "ratio",
    [
        pytest.param(1e-2, id="short memory"),
        pytest.param(1e3, id="early steps matter more"),
        pytest.param(lambda t: 1e-11 if t < 50 else 1e-8 if t < 100 else 1e-1, id="learns to"),
        pytest.param(lambda t: 7e-5 if t in (100, 150) else 3e-4, id="two looks below"),
        pytest.param(lambda t: 4e-7 if t < 100 else 1e-2, id="heals by the second look"),
    ],
)
def test_recurrent_networks_that_remember_are_healthy(ratio):
    assert replay(VanishingGradient(), in_time(220, ratio)) == []


def test_a_profile_with_nan_or_of_a_short_sequence_says_nothing():
    short = in_time(120, 1e-9, length=6)
    broken = [
        replace(
            s, flow=replace(s.flow, time_profiles=(replace(p, grad_norm=p.grad_norm * np.nan),))
        )
        if s.flow and (p := s.flow.time_profiles[0])
        else s
        for s in in_time(120, 1e-9)
    ]
    assert replay(VanishingGradient(), short + broken) == []


# ------------------------------------------------------------------ life


def test_a_layout_that_changes_between_step_and_aftermath_is_skipped():
    samples = train(8, DEEP)
    names = {f"other{i}.weight": 100 for i in range(6)}
    moved = [replace(s, layout=Layout.of(names)) if s.step >= 4 else s for s in samples]
    assert steps_of(replay(VanishingGradient(), samples)) == [5, 6, 7]
    assert steps_of(replay(VanishingGradient(), moved)) == [6, 7]


def test_reset_forgets():
    detector = VanishingGradient()
    assert replay(detector, train(20, DEEP))
    detector.reset()
    assert replay(detector, train(5, DEEP)) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 0}, "ratio must be a finite number > 0 and < 1, got 0"),
        ({"ratio": math.nan}, "got nan"),
        ({"elasticity": -1.0}, "elasticity"),
        ({"time_ratio": 1.5}, "time_ratio"),
        ({"patience": 0}, "patience must be >= 1, got 0"),
        ({"sustained": 0}, "sustained"),
    ],
)
def test_thresholds_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        VanishingGradient(**arguments)


def test_thresholds_are_for_people_who_want_their_own():
    mild = [0.02, 0.05, 0.1, 0.5, 0.8, 1.0]
    assert not replay(VanishingGradient(), train(100, mild))
    assert replay(VanishingGradient(ratio=0.05, elasticity=10), train(100, mild))


def test_a_fixed_limit_is_reported_for_those_who_set_one() -> None:
    samples = [
        make_sample(t, [norm, 1.0], loss=1.0) for t, norm in enumerate((1e-3, 1e-7, math.nan))
    ]
    assert replay(VanishingGradient(), samples) == []
    (found,) = replay(VanishingGradient(min_norm=1e-6), samples)
    assert (found.layers, found.first_step, found.severity) == (("layer0",), 1, Severity.WARNING)
    assert found.evidence["norm"] == pytest.approx(1e-7)
    with pytest.raises(ValueError, match=r"min_norm must be a finite number > 0, got -1"):
        VanishingGradient(min_norm=-1)
