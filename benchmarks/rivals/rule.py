"""What a rival is: a judgement on what its hooks saw, its published thresholds, what may be tuned.

A judgement maps codes to the step at which they were first reported. `"nonfinite|exploding"` is a
statement that cannot tell the two apart; the scoring takes it for whichever of them is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.rivals.seen import Seen
from benchmarks.zoo.trace import Trace

#: A number that is not finite, by rules that call all of that exploding.
NOT_FINITE = "nonfinite|exploding"


@dataclass(frozen=True)
class Rule:
    """One rival.

    Attributes:
        name: Name in the tables.
        judge: Codes to first step, from what was seen and the parameters.
        params: Dataclass of thresholds with their published values.
        grid: Values to search for each field of it that may be tuned, the published one included.
    """

    name: str
    judge: Callable[[Seen, Any], dict[str, int]]
    params: Any
    grid: Mapping[str, Sequence[Any]]

    def report(self, trace: Trace, params: Any = None) -> dict[str, int]:
        """Return codes to the step at which they were first reported."""
        return self.judge(Seen.of(trace), self.params if params is None else params)


def note(found: dict[str, int], code: str, step: int) -> None:
    """Keep the first step of a code."""
    found[code] = min(step, found.get(code, step))
