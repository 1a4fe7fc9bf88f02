"""How actions reach the loop that trains: what a Trainer can do and a bare loop may not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


def _nothing(reason: str) -> None:
    """Stands where a bare loop gives no way to stop; a function so that it can be pickled."""


@dataclass(frozen=True)
class Hands:
    """How an action reaches the loop; a bare loop needs none of them.

    Attributes:
        schedulers: Returns the learning rate schedulers in use.
        stop: Ends training after the current step, given the reason.
        agree: Which of several yes-or-no questions any rank answers with yes; a collective.
    """

    schedulers: Callable[[], Iterable[object]] = tuple
    stop: Callable[[str], None] = _nothing
    agree: Callable[[list[bool]], list[bool]] = list
