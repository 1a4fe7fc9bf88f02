from __future__ import annotations

import math

import pytest

from lightning_gradwatch.detectors import NonFiniteGradient
from lightning_gradwatch.finding import Severity
from lightning_gradwatch.testing import make_sample, replay
from tests.detectors.runs import steps_of


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_found_at_the_step_it_comes_and_at_every_one_it_is_there(bad):
    samples = [make_sample(t, [bad if t in (0, 4, 5) else 1.0, 1.0], loss=1.0) for t in range(8)]
    found = replay(NonFiniteGradient(), samples)
    assert steps_of(found) == [0, 4, 5]
    assert {f.severity for f in found} == {Severity.ERROR}


def test_the_layer_closest_to_the_loss_is_named():
    [finding] = replay(
        NonFiniteGradient(), [make_sample(3, [math.nan, math.inf, 1.0, None], loss=0.5)]
    )
    assert finding.layers == ("layer0", "layer1")
    assert finding.summary == (
        "NaN or Inf in the gradient of 2 of 3 layers, layer1 closest to the loss; "
        "the loss is finite."
    )
    assert finding.evidence == {
        "parameters": 2,
        "layers": 2,
        "layers_with_gradient": 3,
        "loss_is_finite": 1,
        "everywhere": 0,
    }


def test_everywhere_means_forward_or_loss():
    [finding] = replay(NonFiniteGradient(), [make_sample(3, [math.nan] * 3, loss=math.nan)])
    assert finding.evidence["everywhere"] == 1
    assert (
        finding.summary
        == "NaN or Inf in the gradient of all 3 layers; the loss is not finite either."
    )


def test_a_loss_that_overflowed_alone():
    [finding] = replay(NonFiniteGradient(), [make_sample(3, [1e30], loss=math.inf)])
    assert finding.layers == ()
    assert finding.summary == "NaN or Inf in the loss; the gradients are finite."


def test_a_loss_nobody_told_us_is_no_finding():
    assert replay(NonFiniteGradient(), [make_sample(0, [1.0], loss=math.nan)]) == []


def overflows(n, **fields):
    return [make_sample(t, [math.inf], amp_overflow=True, **fields) for t in range(n)]


def test_a_scaler_looking_for_its_scale_is_normal():
    calm = make_sample(99, [1.0], loss=1.0)
    assert replay(NonFiniteGradient(), [*overflows(20, loss=1.0), calm] * 3) == []


def test_a_scaler_that_never_finds_it_is_not():
    found = replay(NonFiniteGradient(max_overflows=20), overflows(23, loss=1.0))
    assert steps_of(found) == [20, 21, 22]
    assert found[-1].evidence["overflows"] == 23
    assert "overflowed 23 times in a row" in found[-1].summary


def test_a_nan_loss_under_a_scaler_is_found_at_once():
    assert steps_of(replay(NonFiniteGradient(), overflows(2, loss=math.nan))) == [0, 1]


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="max_overflows must be >= 1, got 0"):
        NonFiniteGradient(max_overflows=0)


def test_a_nan_loss_that_was_told_is_found_though_its_gradient_is_finite():
    # The mean of nothing: NaN, with a gradient of zero.
    [finding] = replay(NonFiniteGradient(), [make_sample(0, [0.0], loss=math.nan, has_loss=True)])
    assert finding.summary == "NaN or Inf in the loss; the gradients are finite."
