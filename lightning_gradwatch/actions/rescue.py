"""A ready list of actions for runs that must survive the night."""

from __future__ import annotations

from lightning_gradwatch.actions.protocol import Action
from lightning_gradwatch.actions.rollback import Rollback
from lightning_gradwatch.actions.skip_step import SkipStep
from lightning_gradwatch.actions.zclip import ZClip


def rescue() -> list[Action]:
    """Return the actions that together keep the most runs alive, and change healthy ones least."""
    return [
        SkipStep(),
        ZClip(),
        Rollback(on=("exploding", "nonfinite", "oscillating"), factor=0.2),
    ]
