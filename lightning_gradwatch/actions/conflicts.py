"""Actions that do not go together: refused, or said, before the first step."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from lightning_gradwatch.actions.decay_lr import DecayLR
from lightning_gradwatch.actions.rollback import Rollback
from lightning_gradwatch.actions.save_batch import SaveBatch
from lightning_gradwatch.actions.signs import PATIENCE
from lightning_gradwatch.actions.skip_step import SkipStep
from lightning_gradwatch.actions.stop_training import StopTraining
from lightning_gradwatch.errors import GradWatchWarning

#: Those that do not touch gradients, weights or learning rates.
_BY_STANDERS = (StopTraining, SaveBatch)


def check_together(actions: Sequence[Any]) -> None:
    """Refuse what cannot work together, and warn of what one action keeps from another.

    Args:
        actions: In the order in which they run.

    Raises:
        ValueError: the same object twice, two `Rollback`, or a `StopTraining` that ends training on
            the very findings that a `Rollback` is there for.

    Example:
        >>> check_together([SkipStep(), Rollback()])
        >>> check_together([Rollback(), StopTraining(on=("exploding",))])
        Traceback (most recent call last):
            ...
        ValueError: actions: StopTraining(on=('exploding',)) ends training on 'exploding', which \
Rollback is there to survive. Rollback ends training by itself after max_times; leave one of them \
out, or give them different codes.
    """
    for i, action in enumerate(actions):
        if any(action is other for other in actions[:i]):
            raise ValueError(
                f"actions: {action!r} is there twice; every entry needs its own object"
            )
    rollbacks = [(i, a) for i, a in enumerate(actions) if isinstance(a, Rollback)]
    if len(rollbacks) > 1:
        raise ValueError(
            f"actions: {len(rollbacks)} Rollbacks would undo one another. Use one, with all codes: "
            f"Rollback(on={tuple(dict.fromkeys(c for _, a in rollbacks for c in a.on))!r})."
        )
    for place, action in rollbacks:
        _beside_rollback(action, actions[:place], actions[place + 1 :])


def _beside_rollback(rollback: Rollback, before: Sequence[Any], after: Sequence[Any]) -> None:
    for other in (*before, *after):
        shared = [code for code in rollback.on if code in getattr(other, "on", ())]
        if isinstance(other, StopTraining) and shared:
            raise ValueError(
                f"actions: {other!r} ends training on {shared[0]!r}, which Rollback is there to "
                "survive. Rollback ends training by itself after max_times; leave one of them out, "
                "or give them different codes."
            )
        if isinstance(other, DecayLR) and shared:
            _warn(
                f"{other!r} and Rollback both lower the learning rate on {shared[0]!r}. Leave "
                "DecayLR out, or give it other codes."
            )
        if not isinstance(other, SkipStep) or "nonfinite" not in shared:
            continue
        if any(other is later for later in after):
            _warn(
                f"{other!r} comes after Rollback, which then goes back at every single step with "
                "NaN. Put SkipStep first: it leaves such steps out, and Rollback acts if they do "
                "not end."
            )
        elif other.max_consecutive < PATIENCE:
            _warn(
                f"{other!r} ends training before Rollback acts, at {PATIENCE} non-finite steps in "
                f"a row. Use max_consecutive={PATIENCE} or more."
            )


def _warn(message: str) -> None:
    warnings.warn(f"GradWatch: {message}", GradWatchWarning, stacklevel=5)


def refused_without_gradients(actions: Sequence[Any], reason: str) -> str:
    """Return why these actions cannot be used where gradients cannot be read; "" if they can.

    Those of a user's own are theirs to judge.

    Args:
        actions: What the user has configured.
        reason: Why gradients cannot be read.
    """
    home = __package__
    ours = [a for a in actions if type(a).__module__.startswith(f"{home}.")]
    refused = [a for a in ours if not isinstance(a, _BY_STANDERS)]
    if not refused:
        return ""
    names = ", ".join(type(a).__name__ for a in refused)
    return (
        f"actions: {names} cannot act here: {reason}. Use the strategy's own settings, "
        "Trainer(gradient_clip_val=...), or another strategy, such as DDP or "
        "ModelParallelStrategy (FSDP2)."
    )
