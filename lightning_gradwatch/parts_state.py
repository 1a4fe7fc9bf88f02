"""The state of detectors and actions in a checkpoint: plain Python values, part by part."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_gradwatch.guard import Guard


def save_parts(parts: Sequence[Any], guard: Guard) -> list[dict[str, Any] | None]:
    """Return the state of each part; None for one that has none, or none that can be saved."""
    return [_save(part, guard) for part in parts]


def _save(part: Any, guard: Guard) -> dict[str, Any] | None:
    if not hasattr(part, "state_dict"):
        return None
    name = type(part).__qualname__
    state = guard.call(
        f"saving the state of {name}", lambda: plain(part.state_dict()), default=None
    )
    return None if state is None else {"class": name, "state": state}


def load_parts(
    parts: Sequence[Any], states: Sequence[Mapping[str, Any] | None], guard: Guard
) -> None:
    """Give each part its state back; one that is not what it was then starts anew."""
    for part, saved in zip(parts, states, strict=False):
        if saved is not None and saved["class"] == type(part).__qualname__:
            guard.call(part, part.load_state_dict, saved["state"], default=None)


def plain(value: Any) -> Any:
    """Return `value` if it is of plain types and tensors: `weights_only` loading takes no others.

    Raises:
        TypeError: it is not.
    """
    json.dumps(value, default=_tensor)
    return value


def _tensor(value: Any) -> None:
    """Let tensors pass; told by name, because torch is not known here."""
    if type(value).__module__.partition(".")[0] != "torch" or type(value).__name__ != "Tensor":
        raise TypeError(f"{type(value).__name__} cannot be saved in a checkpoint")
