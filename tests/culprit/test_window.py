"""What is kept of a batch: the states of the generators that a training step draws from."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from lightning_gradwatch.culprit.batches import LOOK_EVERY, LOOKS, Window

DRAWS = {"python": random.random, "torch": lambda: torch.rand(1)}
both = pytest.mark.parametrize("name", DRAWS)


def kept_states(window: Window, steps: int, name: str, draws_at: int | None = None) -> list[bool]:
    draw: Callable[[], object] = DRAWS[name]
    seen = []
    for step in range(steps):
        window.add(torch.ones(1), step)
        seen.append(name in window.kept[-1].states)
        if draws_at is not None and step >= draws_at:
            draw()
        window.forget()
        draw()  # between steps anybody may draw: samplers do
    return seen


@both
def test_they_are_kept_at_first_and_now_and_then(name: str) -> None:
    seen = kept_states(Window(), 2 * LOOK_EVERY + 1, name)
    looks = [step < LOOKS or step % LOOK_EVERY == 0 for step in range(2 * LOOK_EVERY + 1)]
    assert seen == looks


@both
def test_one_is_kept_always_once_a_training_step_has_drawn_from_it(name: str) -> None:
    assert all(kept_states(Window(), 30, name, draws_at=LOOKS - 1))
    seen = kept_states(Window(), LOOK_EVERY + 5, name, draws_at=LOOKS + 5)
    assert not any(seen[LOOKS:LOOK_EVERY])
    assert all(seen[LOOK_EVERY:])


def test_the_others_are_not_kept_for_it() -> None:
    window = Window()
    kept_states(window, LOOKS, "torch", draws_at=0)
    window.add(torch.ones(1), LOOKS)
    assert set(window.kept[-1].states) == {"torch"}


@both
def test_they_are_kept_always_where_batches_are_saved(name: str) -> None:
    assert all(kept_states(Window(whole=True), 30, name))


def test_a_draw_in_any_micro_batch_is_seen():
    window = Window()
    for step in range(2):
        window.add(torch.ones(1), step)
        if step == 0:
            torch.rand(1)
    window.forget()
    for step in range(LOOKS):
        window.add(torch.ones(1), step)
        assert "torch" in window.kept[-1].states
        window.forget()
    window.add(torch.ones(1), 0)
    assert set(window.kept[-1].states) == {"torch"}
