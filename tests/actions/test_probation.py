"""Probation: a run that was set back has to get somewhere."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable

import pytest

from lightning_gradwatch.actions.probation import Probation


def failed_at(course: Callable[[int], float], sigma: float = 0.2, **given: float) -> list[int]:
    drawn = random.Random(0)
    probation = Probation(**{"origin": 2.5, "set_back": True} | given)  # type: ignore[arg-type]
    failed = []
    for step in range(200):
        probation.push(course(step) * drawn.lognormvariate(0, sigma))
        if probation.has_failed:
            failed.append(step)
    return failed


@pytest.mark.parametrize("loss", [2.3, 2.6, 40.0])
def test_a_loss_that_does_not_fall_fails_once(loss: float) -> None:
    assert failed_at(lambda t: loss) == [44]


def test_what_was_learnt_and_lost_again_fails() -> None:
    assert failed_at(lambda t: 2.5 * 0.9**t if t < 12 else 2.3) == [44]


@pytest.mark.parametrize(
    "course",
    [lambda t: 2.5 * 0.98**t, lambda t: 2.5 - 0.012 * t, lambda t: 1.0, lambda t: 0.0],
    ids=["falling", "slowly", "learnt at once", "zero"],
)
def test_a_run_that_learns_passes(course: Callable[[int], float]) -> None:
    assert failed_at(course) == []


def test_with_a_level_of_its_own_the_run_has_to_hold_it() -> None:
    assert failed_at(lambda t: 0.1, level=0.1) == []
    assert failed_at(lambda t: 0.3, level=0.1) == [44]


@pytest.mark.parametrize("sick", [math.nan, math.inf])
def test_nonfinite_losses_are_passed_over(sick: float) -> None:
    assert failed_at(lambda t: sick) == []


def test_nothing_is_said_of_a_run_that_was_not_set_back_or_is_below_zero() -> None:
    assert failed_at(lambda t: 9.0, set_back=False) == []
    assert failed_at(lambda t: -9.0) == []


def test_state_is_plain_and_bounded() -> None:
    probation = Probation()
    for _ in range(1000):
        probation.push(1.0)
    text = json.dumps(probation.to_dict())
    assert len(text) < 500
    assert Probation.from_dict(json.loads(text)) is not None
