"""A ready list of actions for runs that must survive the night."""

from __future__ import annotations

from lightning_gradwatch.actions.protocol import Action
from lightning_gradwatch.actions.rollback import Rollback
from lightning_gradwatch.actions.skip_step import SkipStep
from lightning_gradwatch.actions.zclip import ZClip


def rescue() -> list[Action]:
    """Return new actions that together keep the most runs alive, and change healthy ones least.

    The clip is for single steps far out of line only: at its published threshold of 2.5 it also
    acts on what is merely noisy. The factor is that of a rate which is far too high; where it was
    not, a lower rate costs little.

    Example:
        >>> rescue()[0]
        SkipStep(on=('nonfinite',), max_consecutive=10)
    """
    return [
        SkipStep(),
        ZClip(z_threshold=5.0, warmup_factor=100.0),
        Rollback(
            on=("exploding", "nonfinite", "oscillating", "dead_units", "saturated"), factor=0.2
        ),
    ]
