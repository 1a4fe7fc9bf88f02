"""The best thresholds a rule can have: rivals are also scored with these.

Coordinate search from several starts: every field in turn takes the value of its grid that scores
best, until a round changes nothing. What is maximised is micro F1 less the share of healthy runs
with a false alarm.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.rivals.rule import Rule
from benchmarks.rivals.seen import Seen
from benchmarks.scoring import Score, score
from benchmarks.zoo.trace import Trace, Verdict


def value_of(scored: Score) -> float:
    """Return what tuning maximises; a part that is not defined counts as 0."""
    micro, alarms = scored.micro_f1, scored.false_alarms
    return (0.0 if micro != micro else micro) - (0.0 if alarms != alarms else alarms)


def tune(
    rule: Rule, pairs: Sequence[tuple[Trace, Verdict]], rounds: int = 3, starts: int = 4
) -> Any:
    """Search the thresholds of a rule.

    Args:
        rule: The rule, with what to search.
        pairs: Runs to tune on, and what was measured of them.
        rounds: Rounds over all fields at most.
        starts: Starts of the search: the published thresholds, and others drawn at random.

    Returns:
        Its parameters; of equally good ones those reached from the published ones.
    """
    seen = {id(trace): Seen.of(trace) for trace, _ in pairs}

    def value(params: Any) -> float:
        return value_of(score(pairs, lambda trace: rule.judge(seen[id(trace)], params)))

    draw = random.Random(0)
    others = [
        replace(rule.params, **{name: draw.choice(list(v)) for name, v in rule.grid.items()})
        for _ in range(starts - 1)
    ]
    found = [_climb(rule, start, value, rounds) for start in (rule.params, *others)]
    return max(found, key=lambda pair: pair[1])[0]  # the first of equals: nearest to published


def _climb(rule: Rule, start: Any, value: Callable[[Any], float], rounds: int) -> tuple[Any, float]:
    best, highest = start, value(start)
    for _ in range(rounds):
        before = best
        for name, values in rule.grid.items():
            for candidate in values:
                params = replace(best, **{name: candidate})
                reached = value(params) if params != best else highest
                if reached > highest:
                    best, highest = params, reached
        if best == before:
            break
    return best, highest
