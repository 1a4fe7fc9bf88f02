"""Here the CPU stands for a device: nothing in it is at hand, and each step is waited for."""

from __future__ import annotations

import pytest

from lightning_gradwatch import engine
from lightning_gradwatch.probe import host


class Nobody:
    """Takes the place of `Together`, which has tests of its own."""

    def __new__(cls, row: object) -> None:  # type: ignore[misc]  # there shall be none
        return None


@pytest.fixture(autouse=True)
def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "is_at_hand", lambda values: False)
    monkeypatch.setattr(engine, "Together", Nobody)
