"""Times GradWatch and the steps it watches, and decides how often to sample under a budget.

Knows neither torch nor a loop. A turn is all from one optimizer step that is about to be made to
the next. What we do ourselves is timed; hooks on modules run inside the forward and backward pass
and are not ours to time, so they are what turns with them take longer.

A turn tells little; spans of turns are measured two at a time, see `spans`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from lightning_gradwatch.costs import Costs, Intervals
from lightning_gradwatch.spans import Span, measured, plain_step

#: The first turns of a run are slow for reasons of their own.
_LEFT_OUT = 3

#: Ends of the first spans: two of steps that are looked into, two of steps that are not.
_LOOKED, _FIRST = (7, 10), (17, 24)

#: Turns of a span that shows what wider intervals have brought, of the next, and of the longest.
_SOON, _NEXT, _LONGEST = 20, 50, 400


class Pace:
    """Decides on the intervals of one run. A context manager around all that is to be timed.

    Args:
        budget: The share of a step that may be taken.
        intervals: Those that were asked for, the shortest there will be.
        acts: Every step is read, whether it is recorded or not, since actions want to.
        clock: Seconds since any fixed point; given by tests.

    Attributes:
        clock: As given.
        intervals: Those that hold.
        measured: What was taken when it was first found to be above the budget; None: never yet.
        costs: What was measured last.
        told: The user knows.
        on_trial: The first wider intervals hold, and nobody has measured yet what they bring.

    Example:
        >>> now = 0.0
        >>> pace = Pace(0.01, Intervals(1, 50), acts=False, clock=lambda: now)
        >>> for step in range(30):
        ...     with pace:
        ...         _ = pace.end_turn()
        ...         pace.begin_turn(recorded=True, looked=step < 10)
        ...         now += 0.05  # ours
        ...     now += 1.0  # the step's own
        >>> pace.intervals
        Intervals(norms=9, looks=50)
    """

    def __init__(
        self,
        budget: float,
        intervals: Intervals,
        acts: bool,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.budget = budget
        self.asked = intervals
        self.acts = acts
        self.clock = clock
        self._depth = 0
        self.reset()

    def reset(self) -> None:
        """Forget the run: a new one begins."""
        self.intervals = self.asked
        self.costs = Costs()
        self.measured: float | None = None
        self.told = self.on_trial = False
        self._begin()

    def _begin(self, optimizers: int = 1) -> None:
        """Forget what was timed; what was learnt from it stays."""
        self._own, self._began, self._since = 0.0, 0.0, self.clock()
        self._kind: tuple[bool, bool] | None = None
        self._hooked = False
        self._turns = 0
        self._optimizers = optimizers
        self._warm: list[Span] = []
        self._first: Span | None = None
        self._span = Span()
        self._end, self._length, self._usual = 0, 0, _NEXT
        self._end = self._next_end()

    def start(self, optimizers: int = 1) -> None:
        """Training begins, or goes on.

        Args:
            optimizers: How many take turns: each has first steps of its own.
        """
        self._begin(max(optimizers, 1))

    def __getstate__(self) -> dict[str, Any]:
        """A copy is not in the midst of anything."""
        return self.__dict__ | {"_depth": 0}

    # ------------------------------------------------------------------ timing

    def __enter__(self) -> None:
        if self._depth == 0:
            self._since = self.clock()
        self._depth += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._own += self.clock() - self._since

    def hooked(self) -> None:
        """Modules have hooks in the forward and backward passes of this turn."""
        self._hooked = True

    @property
    def ends_span(self) -> bool:
        """Whether the next step ends a span: whatever was put off belongs before it."""
        return self._turns == self._end

    def begin_turn(self, *, recorded: bool, looked: bool) -> None:
        """Say of the step that is about to be made what will be done with it.

        Args:
            recorded: Its norms are recorded.
            looked: It is looked into, or its weight change is measured.
        """
        self._kind = recorded, looked

    def end_turn(self) -> bool:
        """An optimizer step is about to be made, while timed: the turn of the one before ends.

        Returns:
            True if it was measured anew what is taken: intervals may be wider now.
        """
        now = self.clock()
        own, turn = self._own + now - self._since, now - self._began
        kind, hooked, ends = self._kind, self._hooked, self.ends_span
        self._kind, self._hooked = None, False
        self._own, self._began, self._since = 0.0, now, now
        # Else the clock was set, or there is nothing yet.
        if kind is not None and self._turns > _LEFT_OUT and 0 <= own <= turn < math.inf:
            span = self._span
            kinds = span.looked if kind[1] else span.recorded if kind[0] else span.others
            kinds.append(own)
            (span.hooked if hooked else span.plain).append(turn - own)
        self._turns += 1
        return ends and self._close()

    # ------------------------------------------------------------------ deciding

    def _close(self) -> bool:
        """Keep the span that has ended; with a second one of its kind, decide."""
        ended, self._span = self._span, Span()
        decided = False
        if self._end <= self._optimizers * _LOOKED[-1]:
            self._warm.append(ended)
        elif self._first is None:
            self._first = ended
        else:
            pair, self._first = [self._first, ended], None
            decided = self._decide(pair)
        self._end = self._next_end()
        return decided

    def _next_end(self) -> int:
        """Return the turn with which the span that begins now will end."""
        for end in (*_LOOKED, *_FIRST):
            if self._end < end * self._optimizers:
                return end * self._optimizers
        if self._first is None:  # two spans begin
            if self.on_trial:
                self._length = _SOON
            else:
                self._length = max(self._usual, 2 * self.intervals.norms)
                self._usual = min(2 * self._usual, _LONGEST)
        return self._end + self._length

    def _decide(self, pair: list[Span]) -> bool:
        step = plain_step(pair)
        if not 0 < step < math.inf:  # nothing to take a share of
            return False
        self.costs = measured(pair, self._warm, step, self.costs, self.acts)
        if any(span.plain for span in pair):
            self._warm = []
        self.on_trial = False
        share = self.costs.share(self.intervals)
        if share > self.budget and self.measured is None:
            self.measured, self.on_trial = share, True
        if self.costs.exceed(self.budget, self.intervals):
            wider = self.costs.within(self.budget, self.intervals)
            if self.acts and math.isnan(self.costs.fixed):
                # What a step costs that is read and not recorded can only be found out.
                wider = wider._replace(norms=min(wider.norms, 2 * self.intervals.norms))
            self.intervals = wider
        return True

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on with: plain Python values."""
        return {
            "intervals": list(self.intervals),
            "costs": list(self.costs),
            "measured": self.measured,
            "told": self.told,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where `state_dict` left off."""
        self.intervals = Intervals(*(int(steps) for steps in state["intervals"]))
        self.costs = Costs(*(float(share) for share in state["costs"]))
        self.measured = state["measured"]
        self.told = bool(state["told"])
