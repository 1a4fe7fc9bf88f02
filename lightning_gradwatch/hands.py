"""How actions reach the loop that trains: what a Trainer can do and a bare loop may not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


def _nothing(reason: str) -> None:
    """Stands where a bare loop gives no way to stop; a function so that it can be pickled."""


@dataclass(frozen=True)
class Hands:
    """How an action reaches the loop; a bare loop needs none of them.

    Attributes:
        schedulers: Returns the learning rate schedulers in use.
        stop: Ends training after the current step, given the reason.
        add: Adds up each of several numbers over all ranks; a collective.
        ranks: How many there are.
        rank: Which one this is.
        folder: Where actions may write files, the same on every rank; None: nowhere.
    """

    schedulers: Callable[[], Iterable[object]] = tuple
    stop: Callable[[str], None] = _nothing
    add: Callable[[list[float]], list[float]] = list
    ranks: int = 1
    rank: int = 0
    folder: Path | None = None

    def agree(self, decision: bool) -> bool:
        """Return whether any rank decides so."""
        return self.add([float(decision)])[0] > 0
