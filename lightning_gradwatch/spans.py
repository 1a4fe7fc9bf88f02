"""Turns in a row, and what they say of the cost of each kind of step.

Judging is put off and done for several steps in a row, so a single turn tells little: what is ours
is averaged over a span of turns, at whose ends nothing is left to be judged. Two spans make a
measurement, and the lesser of each figure counts: whatever else the machine does only adds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from lightning_gradwatch.costs import Costs

#: A turn with a validation or a checkpoint in it counts as so many usual ones at most.
_PAUSE = 4.0


@dataclass
class Span:
    """Turns in a row, in seconds.

    Attributes:
        looked: What was ours of those that were looked into, or whose weight change was measured.
        recorded: Of those beside them whose norms were recorded.
        others: Of all others.
        plain: What was not ours, of turns without hooks on modules.
        hooked: Of turns with hooks.

    Example:
        >>> Span(looked=[0.5], recorded=[0.1, 0.1], plain=[1.0, 1.0], hooked=[1.2]).looked
        [0.5]
    """

    looked: list[float] = field(default_factory=list)
    recorded: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    hooked: list[float] = field(default_factory=list)


def plain_step(pair: Sequence[Span]) -> float:
    """Return the seconds that a step takes without us; NaN if there is none.

    Example:
        >>> plain_step([Span(plain=[1.0, 1.0, 1.0]), Span(plain=[1.0, 50.0, 1.0])])
        1.5
    """
    spans = [span.plain for span in pair if span.plain]
    # Where modules have hooks at every step, nobody knows what is theirs.
    spans = spans or [span.hooked for span in pair if span.hooked]
    return fmean(map(_usual, spans)) if spans else math.nan


def _usual(times: list[float]) -> float:
    """Mean of the times, pauses cut short: optimizers that take turns have long and short ones."""
    longest = _PAUSE * median(times)
    return fmean(min(seconds, longest) for seconds in times)


def measured(
    pair: Sequence[Span], warm: Sequence[Span], step: float, known: Costs, acts: bool
) -> Costs:
    """Return what each kind of step costs.

    Args:
        pair: Two spans that follow each other.
        warm: Those of the first steps, which are all looked into; none: they are in `known`.
        step: Seconds of a step without us.
        known: What is known so far, for what the spans do not show.
        acts: Every step is read, whether it is recorded or not.
    """
    fixed, recorded, looked, hooks = known
    close = [span for span in warm if span.looked]
    if close:
        looked = min(fmean(span.looked) for span in close) / step
        hooked = [median(span.hooked) for span in close if span.hooked]
        hooks = max(min(hooked) / step - 1, 0.0) if hooked else 0.0
    elif math.isnan(looked) and any(span.looked for span in pair):
        looked = min(fmean(span.looked) for span in pair if span.looked) / step
    # Without actions nothing but what was put off makes such a turn long: that is of recorded ones.
    middle = fmean if acts else median
    others = [span.others for span in pair if span.others]
    if others:
        fixed = min([middle(times) for times in others]) / step
    there = [_recorded(span, fixed * step, looked * step) for span in pair if span.recorded]
    return Costs(fixed, min(there) / step if there else recorded, looked, hooks)


def _recorded(span: Span, fixed: float, looked: float) -> float:
    """Seconds for each recorded turn: all that other turns do not explain."""
    every = sum(span.recorded) + sum(span.looked) + sum(span.others)
    explained = len(span.others) * fixed if span.others else 0.0
    explained += len(span.looked) * looked if span.looked else 0.0
    return max((every - explained) / len(span.recorded), 0.0)
