"""Stride: how long the first step was tells how far the rate of a young run must come down."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lightning_gradwatch.actions import Training
from lightning_gradwatch.actions.stride import Stride
from lightning_gradwatch.sample import Update
from lightning_gradwatch.testing import make_sample
from tests.actions.steps import Ranks


def training(step: int, promised: float | None = None, loss: float = 2.0, **more: Any) -> Training:
    """A step; with the aftermath of the one before, which promised to lower the loss by so much."""
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=more.pop("momentum", 0.0))
    sample = make_sample(step, [1.0], loss=loss, amp_overflow=more.pop("amp_overflow", False))
    if promised is not None:
        one = np.ones(1)
        update = Update(step - 1, 0, one, one, np.array([promised]))
        sample = replace(sample, update=update)
    return Training(sample, optimizer, list, **more)


def seen(promised: float, loss: float = 2.0, **more: Any) -> Stride:
    stride = Stride()
    stride.see(training(0, loss=loss, **more))
    stride.see(training(1, promised, loss=1e9, **more))
    return stride


@pytest.mark.parametrize("sick", [math.nan, math.inf, -1.0, 0.0])
def test_a_loss_that_is_no_measure_says_nothing(sick: float) -> None:
    stride = seen(8.0, loss=sick)
    assert math.isnan(stride.length)
    assert not stride.is_far_too_long(training(9))
    assert stride.factor(0.2, training(9)) == 0.2


@pytest.mark.parametrize("sick", [math.nan, math.inf])
def test_a_change_that_is_not_finite_says_nothing(sick: float) -> None:
    assert math.isnan(seen(sick).length)


@pytest.mark.parametrize("unit", [1e-20, 1.0, 1e20])
def test_it_is_a_share_of_the_loss(unit: float) -> None:
    assert seen(8.0 * unit, loss=2.0 * unit).length == pytest.approx(4.0)


def test_only_the_first_step_counts() -> None:
    stride = seen(0.2)
    stride.see(training(2, 1e9))
    assert stride.length == pytest.approx(0.1)


def test_overflows_of_a_scaler_are_no_first_step() -> None:
    stride = Stride()
    stride.see(training(0, amp_overflow=True, loss=math.nan))
    stride.see(training(1))
    stride.see(training(2, 8.0))
    assert stride.length == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("promised", "momentum", "factor"),
    [(0.1, 0.0, 0.2), (8.0, 0.0, 0.05), (0.8, 0.9, 0.05), (2e6, 0.0, 0.025), (1e300, 0.9, 0.025)],
)
def test_the_rate_comes_down_until_steps_are_sound(
    promised: float, momentum: float, factor: float
) -> None:
    stride = seen(promised, momentum=momentum)
    assert stride.factor(0.2, training(5)) == pytest.approx(factor)
    # What it told was used: a further rollback goes on from there.
    assert stride.factor(0.2, training(6)) == 0.2 or factor == 0.2


def test_ranks_come_to_the_same() -> None:
    """One that saw nothing lowers as far as one that saw a step that is far too long."""
    others = Ranks(others=True)
    assert seen(0.1).is_far_too_long(training(9, agree=others))
    assert seen(0.1).factor(0.2, training(9, agree=others)) == pytest.approx(0.025)


def test_state_is_plain_and_comes_back() -> None:
    stride = seen(8.0, momentum=0.9)
    stride.factor(0.2, training(5))
    assert Stride.from_dict(json.loads(json.dumps(stride.to_dict()))) == stride
