"""What actions did, gathered as it is read: nobody keeps 20,000 records of clipping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.recording.jsonsafe import json_safe
from lightning_gradwatch.report.interventions import Intervention
from lightning_gradwatch.view.growing import Growing

#: Most stretches of steps named for one action.
SPANS = 256


class ActionLog:
    """The records of one action, summed up.

    Args:
        action: Name of the action's class.
    """

    def __init__(self, action: str) -> None:
        self.action = action
        self._steps = Growing(np.int64)
        self._reason = ""
        self._chained = True
        self._first: tuple[float, float] | None = None
        self._last = self._largest = (math.nan, math.nan)

    def add(self, record: ActionRecord) -> None:
        """Take in a record."""
        before, after = float(record.before), float(record.after)
        if self._first is None:
            self._first = self._largest = (before, after)
        elif not math.isclose(self._last[1], before, rel_tol=1e-6):
            self._chained = False
        if not math.isnan(before) and not before <= self._largest[0]:
            self._largest = (before, after)
        self._last = (before, after)
        self._reason = record.reason
        self._steps.append(np.array([record.step], np.int64))

    def intervention(self) -> Intervention:
        """Return what reports say of it."""
        steps = self._steps.values
        chained = self._chained and len(steps) > 1
        first = self._first or (math.nan, math.nan)
        return Intervention(
            action=self.action,
            count=len(steps),
            first_step=int(steps.min()),
            last_step=int(steps.max()),
            reason=self._reason,
            before=first[0] if chained else self._largest[0],
            after=self._last[1] if chained else self._largest[1],
            chained=chained,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, with the stretches of steps it acted on."""
        entry = self.intervention()
        data: dict[str, Any] = json_safe(entry.to_dict())
        return data | {"text": str(entry), "spans": spans(self._steps.values, SPANS)}


def spans(steps: npt.NDArray[np.int64] | Sequence[int], most: int) -> list[list[int]]:
    """Put steps together into at most `most` stretches, across the smallest gaps.

    Returns:
        `[first, last, count]` of each, ascending.

    Example:
        >>> spans([1, 2, 3, 50, 90], 2)
        [[1, 3, 3], [50, 90, 2]]
    """
    ordered = np.sort(np.asarray(steps, np.int64))
    if not len(ordered):
        return []
    gaps = np.diff(ordered)
    apart = np.flatnonzero(gaps > 1)
    if len(apart) >= most:
        apart = np.sort(apart[np.argsort(-gaps[apart], kind="stable")[: most - 1]])
    starts = np.concatenate([[0], apart + 1])
    stops = np.append(apart, len(ordered) - 1)
    return [
        [int(ordered[a]), int(ordered[b]), int(b - a + 1)]
        for a, b in zip(starts, stops, strict=True)
    ]
