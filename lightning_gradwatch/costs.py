"""What watching costs at given intervals, and the intervals that keep it within a budget."""

from __future__ import annotations

import math
from typing import NamedTuple

#: No interval is widened beyond so many steps.
WIDEST = 1000

#: Intervals are chosen for this part of the budget: what is measured varies.
AIM = 0.8

#: Where what is taken at every step leaves nothing of the budget, sampling gets this part of it: an
#: empty history would be paid for with next to nothing.
LEAST = 0.1


class Intervals(NamedTuple):
    """Steps from one sample to the next.

    Attributes:
        norms: Between steps whose norms are recorded.
        looks: Between looks into the backward pass, and at how weights change.
    """

    norms: int
    looks: int


class Costs(NamedTuple):
    """What is taken on each kind of step, as shares of a step without it; NaN: not known yet.

    Attributes:
        fixed: On a step that is not sampled at all.
        recorded: On a step whose norms are recorded.
        looked: On a step that is looked into besides; there are two for each look.
        hooks: By the hooks on modules, within the forward and backward pass of such a step.

    Example:
        >>> costs = Costs(fixed=0.001, recorded=0.05, looked=0.1, hooks=0.2)
        >>> round(costs.share(Intervals(1, 50)), 4)
        0.056
        >>> wider = costs.within(0.01, Intervals(1, 50))
        >>> wider, costs.share(wider) < 0.01
        (Intervals(norms=11, looks=166), True)
    """

    fixed: float = math.nan
    recorded: float = math.nan
    looked: float = math.nan
    hooks: float = 0.0

    def completed(self) -> Costs:
        """Return the same with a bound in place of what is not known."""
        fixed = 0.0 if math.isnan(self.fixed) else self.fixed
        known = [share for share in (self.recorded, self.looked) if not math.isnan(share)]
        recorded = known[0] if known else fixed
        return Costs(fixed, max(recorded, fixed), max(known[-1] if known else 0, fixed), self.hooks)

    def share(self, at: Intervals) -> float:
        """Return what is taken on average at these intervals."""
        fixed, recorded, looked, hooks = self.completed()
        part = min(2 / at.looks, 1.0)
        sampled = part * (looked - fixed) + (1 - part) * (recorded - fixed) / at.norms
        return fixed + sampled + hooks / at.looks

    def room(self, budget: float) -> float:
        """Return the share that is left for sampling, on average."""
        return max(budget - self.completed().fixed, LEAST * budget)

    def exceed(self, budget: float, at: Intervals) -> bool:
        """Return whether sampling at these intervals takes more than is left for it."""
        return self.share(at) - self.completed().fixed > self.room(budget)

    def within(self, budget: float, at: Intervals) -> Intervals:
        """Return intervals, none shorter than now, at which the share stays within the budget.

        Args:
            budget: The share that may be taken.
            at: The intervals now.
        """
        fixed, recorded, looked, hooks = self.completed()
        room = AIM * self.room(budget)
        norms, look = recorded - fixed, 2 * (looked - fixed) + hooks
        # A third for looks, or what norms leave.
        looks = _at_least(at.looks, look / max(room / 3, room - norms / at.norms))
        return Intervals(_at_least(at.norms, norms / max(room - look / looks, room / 3)), looks)


def _at_least(now: int, wanted: float) -> int:
    return max(now, math.ceil(min(wanted, WIDEST)))
