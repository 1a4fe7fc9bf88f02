"""Here the CPU stands for a device: nothing in its memory is at hand."""

from __future__ import annotations

import pytest

from lightning_gradwatch import together
from lightning_gradwatch.probe import host


@pytest.fixture(autouse=True)
def nothing_is_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "is_at_hand", lambda values: False)


@pytest.fixture(autouse=True)
def no_step_waits_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "STEPS", 1)
