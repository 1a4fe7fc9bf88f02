"""What an action did: the record that every reporter shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ActionRecord:
    """One intervention into training.

    Attributes:
        action: Name of the action's class, like `"ClipGradNorm"`.
        step: Optimizer step it acted on (x axis of the loggers).
        reason: Why, in words.
        before: The quantity acted on, before: a norm, a learning rate. NaN if there is none.
        after: The same quantity, after.
    """

    action: str
    step: int
    reason: str
    before: float = float("nan")
    after: float = float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python types only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ActionRecord:
        """Rebuild what `to_dict` returned."""
        return cls(**data)
