"""What the actions did over the run, one line for each: nobody reads 132 records of clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.report.wording import count, number, when


@dataclass(frozen=True)
class Intervention:
    """All records of one action.

    Attributes:
        action: Name of the action's class.
        count: How often it acted.
        first_step: First step it acted on.
        last_step: Last such step.
        reason: Its latest reason, in words.
        before: What it acted on, before: the largest over the run, or the first value if each
            record goes on from where the last one stopped (a learning rate). NaN if there is none.
        after: The same quantity after; of that record, or of the last one.
        chained: Whether each record went on from where the one before stopped.
    """

    action: str
    count: int
    first_step: int
    last_step: int
    reason: str
    before: float
    after: float
    chained: bool

    def __str__(self) -> str:
        """Return one line, like `ClipGradNorm 132 times, up to 3.2e+03 → 1 (steps 4 to 900)`."""
        times = "once" if self.count == 1 else count(self.count, "time")
        change = ""
        if not (math.isnan(self.before) and math.isnan(self.after)):
            upto = "up to " if self.count > 1 and not self.chained else ""
            change = f", {upto}{number(self.before)} → {number(self.after)}"
        steps = when(self.first_step, self.last_step, 1)
        reason = f": {self.reason}" if self.reason and self.count == 1 else ""
        return f"{self.action} {times}{change} ({steps}){reason}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python types; a missing quantity is None."""
        data = asdict(self)
        for name in ("before", "after"):
            data[name] = None if math.isnan(data[name]) else data[name]
        return data


def _chained(records: Sequence[ActionRecord]) -> bool:
    steps = pairwise(records)
    return len(records) > 1 and all(math.isclose(a.after, b.before, rel_tol=1e-6) for a, b in steps)


def merge_actions(records: Iterable[ActionRecord]) -> tuple[Intervention, ...]:
    """Merge records by action, in order of first appearance.

    Example:
        >>> records = [ActionRecord("ClipGradNorm", s, "", 10.0 * s, 1.0) for s in (1, 320, 7)]
        >>> str(merge_actions(records)[0])
        'ClipGradNorm 3 times, up to 3200 → 1 (steps 1 to 320)'
    """
    by_action: dict[str, list[ActionRecord]] = {}
    for record in records:
        by_action.setdefault(record.action, []).append(record)
    merged = []
    for action, group in by_action.items():
        chained = _chained(group)
        # A NaN is what an action meets on the worst of days: it must not win or hide the largest.
        largest = max(group, key=lambda r: -math.inf if math.isnan(r.before) else r.before)
        merged.append(
            Intervention(
                action=action,
                count=len(group),
                first_step=min(r.step for r in group),
                last_step=max(r.step for r in group),
                reason=group[-1].reason,
                before=group[0].before if chained else largest.before,
                after=group[-1].after if chained else largest.after,
                chained=chained,
            )
        )
    return tuple(merged)
