"""What is kept of a batch: Python's random state where a training step draws from it."""

from __future__ import annotations

import random

import torch

from lightning_gradwatch.culprit.batches import LOOK_EVERY, LOOKS, Window


def kept_states(window: Window, steps: int, draws_at: int | None = None) -> list[bool]:
    seen = []
    for step in range(steps):
        window.add(torch.ones(1), step)
        seen.append("python" in window.kept[-1].states)
        assert "torch" in window.kept[-1].states
        if draws_at is not None and step >= draws_at:
            random.random()
        window.forget()
        random.random()  # between steps anybody may draw: samplers do
    return seen


def test_it_is_kept_at_first_and_now_and_then():
    seen = kept_states(Window(), 2 * LOOK_EVERY + 1)
    looks = [step < LOOKS or step % LOOK_EVERY == 0 for step in range(2 * LOOK_EVERY + 1)]
    assert seen == looks


def test_it_is_kept_always_once_a_training_step_has_drawn():
    assert all(kept_states(Window(), 30, draws_at=LOOKS - 1))
    seen = kept_states(Window(), LOOK_EVERY + 5, draws_at=LOOKS + 5)
    assert not any(seen[LOOKS:LOOK_EVERY])
    assert all(seen[LOOK_EVERY:])


def test_it_is_kept_always_where_batches_are_saved():
    assert all(kept_states(Window(whole=True), 30))
