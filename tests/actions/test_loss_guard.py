"""The guard on the loss: what is lost, and what only looks like it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable

import pytest

from lightning_gradwatch.actions.loss_guard import LossGuard


def lost_at(losses: Iterable[float]) -> int | None:
    """The first step at which all is lost; None: never."""
    guard = LossGuard()
    for step, loss in enumerate(losses):
        guard.push(loss)
        if guard.is_lost:
            return step
    return None


def noisy(course: Callable[[int], float], steps: int = 400, sigma: float = 0.3) -> list[float]:
    drawn = random.Random(0)
    return [course(t) * drawn.lognormvariate(0, sigma) for t in range(steps)]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_what_was_learnt_and_lost_again(scale: float) -> None:
    falling = noisy(lambda t: scale * (0.05 + 2 * 0.97**t), 200)
    assert lost_at(falling) is None
    found = lost_at(falling + noisy(lambda t: 2.3 * scale, 40))
    assert found is not None
    assert 200 < found <= 216


def test_a_run_that_only_rises_from_its_start() -> None:
    found = lost_at(noisy(lambda t: 2.0 * 1.6**t, 30))
    assert found is not None
    assert found < 15


HEALTHY = {
    "noisy descent": noisy(lambda t: 0.05 + 2 * 0.98**t, sigma=0.6),
    "nothing learnt yet": noisy(lambda t: 2.3, sigma=0.5),
    "a spike, and back": noisy(lambda t: 5.0 if 200 <= t < 204 else 0.1 + 2 * 0.97**t),
    "a jump, and a slow way back": noisy(
        lambda t: 0.1 + 2 * 0.97**t + 5 * (t > 200) * 0.95 ** (t - 200), sigma=0.1
    ),
    "a warm restart": noisy(lambda t: 0.1 + 2 * 0.97**t + 0.15 * (t > 200) * 0.98 ** (t - 200)),
    "down to nothing, varying by decades": noisy(lambda t: 10 ** (-t / 40), sigma=2.0),
    "a first step that throws": noisy(lambda t: 2.0 * (8 * 0.5**t + 0.99**t)),
    "below zero": noisy(lambda t: -1.0 if t < 200 else 50.0),
    "NaN and Inf": [math.nan, math.inf, 1.0, math.nan] * 50,
    "zero": [0.0] * 100 + [1e-9] * 10,
}


@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_no_loss(name: str) -> None:
    assert lost_at(HEALTHY[name]) is None


def test_calm_is_told_long_before_lost() -> None:
    guard = LossGuard()
    for loss in noisy(lambda t: 0.1 + 2 * 0.97**t, 150, sigma=0.1):
        guard.push(loss)
    assert guard.is_calm
    for _ in range(5):
        guard.push(0.5)
    assert not guard.is_calm
    assert not guard.is_lost


def test_a_new_level_is_accepted_in_the_end() -> None:
    guard = LossGuard()
    for loss in noisy(lambda t: 0.1 + 2 * 0.97**t, 150) + noisy(lambda t: 1.9, 400):
        guard.push(loss)
    assert guard.is_calm
    assert not guard.is_lost


def test_state_round_trip_is_plain_and_bounded() -> None:
    first = LossGuard()
    for loss in noisy(lambda t: 0.1 + 0.97**t, 1000):
        first.push(loss)
    text = json.dumps(first.to_dict())
    assert len(text) < 3000
    second = LossGuard.from_dict(json.loads(text))
    for loss in noisy(lambda t: 1.0, 30):
        first.push(loss)
        second.push(loss)
        assert (first.is_calm, first.is_lost) == (second.is_calm, second.is_lost)
