"""When steps that have been read are judged: several at a time.

Between two steps a model's numbers push everything of ours out of the processor's caches, so that
judging one step costs four times what it costs right behind another. Where no action waits for
the verdict, steps wait for each other instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: Steps that wait for each other at most, and seconds that any of them waits while steps come.
STEPS, SECONDS = 16, 0.5


class Pace:
    """Says when it is time.

    Args:
        clock: Seconds since any fixed point; given by tests.

    Example:
        >>> pace = Pace(clock=lambda: 7.0)
        >>> [pace.is_due() for _ in range(17)].index(True)
        15
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting = 0
        self._since = clock()

    def is_due(self) -> bool:
        """Count a step that waits; whether it has company enough, or steps are slow anyway."""
        self._waiting += 1
        if self._waiting < STEPS and self._clock() - self._since < SECONDS:
            return False
        self.begin()
        return True

    def begin(self) -> None:
        """Nothing waits any more."""
        self._waiting, self._since = 0, self._clock()
