"""The clip actions themselves: records, arguments, their order in a list."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions import ClipGradNorm, ClipGradValue
from tests.actions.steps import parameters_with, reference_norm, training_for

pytestmark = pytest.mark.usefixtures("each_reader")


def step_with(*values: float) -> tuple[nn.Parameter, torch.optim.SGD]:
    (weight,) = parameters_with([torch.tensor(values)])
    return weight, torch.optim.SGD([weight], lr=0.1)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_nonfinite_gradients_are_not_clipped_by_norm(poison: float) -> None:
    weight, sgd = step_with(poison, 300.0)
    assert ClipGradNorm(1.0).apply([], training_for(sgd)) is None
    assert weight.grad[1] == 300.0


def test_by_norm_says_what_it_did() -> None:
    weight, sgd = step_with(24.0, 7.0)
    record = ClipGradNorm(1).apply([], training_for(sgd, step=4))
    reason = "gradient norm 25 is above max_norm 1"
    assert record == ActionRecord("ClipGradNorm", 4, reason, 25.0, 1.0)
    assert weight.grad.tolist() == pytest.approx([0.96, 0.28])


def test_by_value_says_what_it_did() -> None:
    weight, sgd = step_with(24.0, -7.0, 0.25)
    record = ClipGradValue(0.5).apply([], training_for(sgd, step=4))
    reason = "largest gradient element 24 is above value 0.5"
    assert record == ActionRecord("ClipGradValue", 4, reason, 24.0, 0.5)
    assert weight.grad.tolist() == [0.5, -0.5, 0.25]


@pytest.mark.parametrize(
    "action", [ClipGradNorm(25.0), ClipGradNorm(24.0, "inf"), ClipGradValue(24.0)]
)
def test_exactly_at_the_limit_nothing_happens(action: Any) -> None:
    weight, sgd = step_with(24.0, 7.0)
    training = training_for(sgd)
    assert action.apply([], training) is None
    assert not training.touched
    assert weight.grad.tolist() == [24.0, 7.0]


@pytest.mark.parametrize(
    ("actions", "norm"),
    [
        ([ClipGradNorm(0.5), ClipGradNorm(0.1)], 0.1),
        ([ClipGradNorm(0.1), ClipGradNorm(0.5)], 0.1),
        ([ClipGradValue(3.0), ClipGradNorm(1.0)], 1.0),
        ([ClipGradNorm(1.0), ClipGradValue(3.0)], 1.0),
    ],
)
def test_of_several_the_tightest_holds(actions: list[Any], norm: float) -> None:
    weight, sgd = step_with(24.0, 7.0)
    training = training_for(sgd)
    for action in actions:
        action.apply([], training)
    assert reference_norm([weight]) == pytest.approx(norm, rel=1e-6)
    assert training.global_norm == pytest.approx(norm, rel=1e-6)


def test_only_the_parameters_of_this_optimizer_are_clipped() -> None:
    weight, sgd = step_with(24.0, 7.0)
    other, _ = step_with(24.0, 7.0)
    ClipGradNorm(1.0).apply([], training_for(sgd))
    assert reference_norm([weight]) == pytest.approx(1.0)
    assert reference_norm([other]) == 25.0


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, math.inf])
def test_limits_out_of_range_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=f"max_norm must be a finite number > 0, got {bad}"):
        ClipGradNorm(bad)
    with pytest.raises(ValueError, match=f"value must be a finite number > 0, got {bad}"):
        ClipGradValue(bad)


@pytest.mark.parametrize("bad", ["1.0", None, True])
def test_limits_that_are_no_numbers_are_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match="max_norm must be a number"):
        ClipGradNorm(bad)
    with pytest.raises(TypeError, match="value must be a number"):
        ClipGradValue(bad)


def test_norm_types() -> None:
    assert ClipGradNorm(1.0, "inf").norm_type == ClipGradNorm(1.0, math.inf).norm_type == math.inf
    for bad in (0, -2.0, math.nan, "two"):
        with pytest.raises(ValueError, match=r"norm_type must be a .*number"):
            ClipGradNorm(1.0, bad)
