"""Intervals under a budget, on a clock that the test turns."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle

import pytest

from lightning_gradwatch.costs import WIDEST, Costs, Intervals
from lightning_gradwatch.pace import Pace

ASKED = Intervals(1, 50)


class Clock:
    """Stands still unless it is turned."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Run:
    """A training whose every part takes a given time."""

    def __init__(self, budget: float = 0.01, asked: Intervals = ASKED, acts: bool = False) -> None:
        self.clock = Clock()
        self.pace = Pace(budget, asked, acts, clock=self.clock)
        self.pace.start()
        self.count = 0
        self.measured_at: list[int] = []
        self.own = {"fixed": 0.0, "recorded": 0.0, "looked": 0.0}
        self.step, self.hooks, self.deferred = 1.0, 0.0, 0
        self.waiting = 0
        self.pauses: dict[int, float] = {}

    def go(self, steps: int) -> Pace:
        for _ in range(steps):
            pace, at, count = self.pace, self.pace.intervals, self.count
            with pace:
                if pace.ends_span:
                    self._judge()
                if pace.end_turn():
                    self.measured_at.append(count)
                recorded = count % at.norms == 0
                looked = count < 10 or count % at.looks <= 1
                pace.begin_turn(recorded=recorded, looked=looked)
                with pace:  # as a callback around the engine: counted once
                    self._take(recorded, looked)
            self.count += 1
            hooked = self.count < 10 or self.count % at.looks == 0
            if hooked:
                pace.hooked()
            self.clock.now += self.step + self.hooks * hooked + self.pauses.get(count, 0.0)
        return self.pace

    def _take(self, recorded: bool, looked: bool) -> None:
        self.clock.now += self.own["fixed"]
        if looked:
            self.clock.now += self.own["looked"]
        if recorded and self.deferred:
            self.waiting += 1
            if self.waiting == self.deferred:
                self._judge()
        elif recorded:
            self.clock.now += self.own["recorded"]

    def _judge(self) -> None:
        self.clock.now += self.waiting * self.own["recorded"]
        self.waiting = 0


def taken(run: Run, steps: int) -> float:
    """Return the share that is really taken from here on."""
    plain = run.step * steps
    began = run.clock.now
    run.go(steps)
    return (run.clock.now - began - plain) / plain


def test_within_the_budget_nothing_changes():
    run = Run()
    run.own["recorded"] = 0.005
    pace = run.go(1000)
    assert (pace.intervals, pace.measured) == (ASKED, None)
    assert run.measured_at[:2] == [24, 124]


@pytest.mark.parametrize("deferred", [0, 16])
@pytest.mark.parametrize(
    ("fixed", "recorded", "looked", "hooks"),
    [
        (0.0, 0.05, 0.0, 0.0),
        (0.002, 0.05, 0.3, 0.5),
        (0.001, 0.001, 1.5, 1.0),
        (0.004, 2.0, 0.1, 0.0),
    ],
)
def test_the_budget_is_kept(deferred, fixed, recorded, looked, hooks):
    run = Run()
    run.own = {"fixed": fixed, "recorded": recorded, "looked": looked}
    run.hooks, run.deferred = hooks, deferred
    pace = run.go(500)
    assert pace.measured == pytest.approx(fixed + recorded + (2 * looked + hooks) / 50, rel=0.2)
    assert pace.measured > 0.01
    assert not pace.on_trial
    period = math.lcm(*pace.intervals)
    before = pace.intervals
    share = taken(run, min(period, 20_000))
    assert pace.intervals == before, "widened once, and then it was enough"
    assert share <= 0.0101
    assert share > 0.002, "and not by more than what is needed"


def test_cheap_norms_leave_their_part_to_looks():
    run = Run()
    run.own = {"fixed": 0.0, "recorded": 0.001, "looked": 0.3}
    assert run.go(30).intervals == (1, pytest.approx(87, abs=2))


def test_intervals_only_grow_and_have_an_end():
    run = Run(budget=1e-6)
    run.own["recorded"] = 0.5
    seen = [run.go(1).intervals for _ in range(9000)]
    assert all(a.norms <= b.norms and a.looks <= b.looks for a, b in itertools.pairwise(seen))
    assert seen[-1] == (WIDEST, WIDEST)
    assert run.pace.costs.share(seen[-1]) > 1e-6
    assert Run(asked=Intervals(5000, 3000)).go(3000).intervals == (5000, 3000)


def test_what_is_asked_for_is_the_least():
    run = Run(asked=Intervals(10, 200))
    run.own["recorded"] = 0.02
    assert run.go(200).intervals == (10, 200)
    run = Run(asked=Intervals(10, 200))
    run.own["recorded"] = 0.5
    pace = run.go(200)
    assert pace.intervals.norms > 50
    assert pace.intervals.looks == 200


def test_costs_that_come_later_are_seen():
    run = Run()
    run.own["recorded"] = 0.001
    assert run.go(300).intervals == ASKED
    run.own["recorded"] = 0.1
    pace = run.go(1000)
    assert pace.intervals.norms >= 10
    assert pace.measured is not None
    assert taken(run, 1000) <= 0.0101


def test_one_hiccup_changes_nothing():
    run = Run()
    run.own["recorded"] = 0.004
    run.go(150)
    run.own["recorded"] = 5.0
    run.go(1)
    run.own["recorded"] = 0.004
    assert run.go(1000).intervals == ASKED


def test_pauses_hide_nothing_and_count_for_nothing():
    run = Run()
    run.own["recorded"] = 0.05
    run.pauses = dict.fromkeys(range(4, 2000, 9), 500.0)
    pace = run.go(1000)
    assert pace.intervals.norms >= 4
    plain = Run()
    plain.own["recorded"] = 0.05
    assert pace.measured == pytest.approx(plain.go(1000).measured, rel=0.35)


def test_with_actions_every_step_is_read_and_no_interval_helps():
    run = Run(acts=True)
    run.own = {"fixed": 0.05, "recorded": 0.0005, "looked": 0.0}
    pace = run.go(1000)
    assert pace.measured > 0.05
    assert pace.intervals.norms <= 2, "an empty history would be paid for with nothing"
    assert pace.costs.completed().fixed == pytest.approx(0.05)
    assert not pace.costs.exceed(0.01, pace.intervals)


@pytest.mark.parametrize("step", [0.0, math.nan, math.inf, -1.0])
def test_a_clock_that_is_of_no_use_decides_nothing(step):
    run = Run()
    run.own["recorded"], run.step = 0.0 if step == 0.0 else 0.1, step
    pace = run.go(500)
    assert (pace.intervals, pace.measured) == (ASKED, None)


def test_a_clock_that_is_set_costs_one_turn():
    run = Run()
    run.own["recorded"] = 0.05
    run.pauses = {12: -1000.0, 15: 1e9, 20: -3.0}
    assert 4 < run.go(500).intervals.norms < 20


@pytest.mark.parametrize("steps", [0, 1, 2, 8, 23])
def test_a_run_too_short_to_tell(steps):
    run = Run()
    run.own["recorded"] = 0.5
    pace = run.go(steps)
    assert (pace.intervals, pace.measured) == (ASKED, None)


def test_every_step_is_looked_into():
    run = Run(asked=Intervals(1, 1))
    run.own["looked"] = 0.1
    run.hooks = 0.1
    pace = run.go(2000)
    assert pace.intervals.looks > 10
    assert pace.costs.share(pace.intervals) < 0.01


def test_several_optimizers_have_first_steps_of_their_own():
    pace = Pace(0.01, ASKED, acts=False, clock=Clock())
    pace.start(optimizers=3)
    decided = []
    for count in range(80):
        with pace:
            if pace.ends_span:
                decided.append(count)
            pace.end_turn()
            pace.begin_turn(recorded=True, looked=count < 30)
    assert decided == [21, 30, 51, 72]


def test_it_begins_anew_and_goes_on():
    run = Run()
    run.own["recorded"] = 0.05
    pace = run.go(100)
    pace.told = True
    state = json.loads(json.dumps(pace.state_dict()))
    other = Run()
    other.pace.load_state_dict(state)
    other.pace.start()
    other.own["recorded"], other.count = 0.05, 100
    assert other.go(1).intervals == pace.intervals != ASKED
    assert other.pace.told
    assert other.pace.measured == pace.measured
    assert other.go(400).intervals == pace.intervals
    other.pace.reset()
    assert (other.pace.intervals, other.pace.told) == (ASKED, False)


def test_copies():
    pace = Pace(0.01, ASKED, acts=True)
    assert pickle.loads(pickle.dumps(pace)).intervals == copy.deepcopy(pace).intervals == ASKED


def test_costs_with_gaps():
    nothing = Costs()
    assert nothing.share(ASKED) == 0
    assert nothing.within(0.01, ASKED) == ASKED
    only_looks = Costs(looked=0.1)
    assert only_looks.share(ASKED) == pytest.approx(0.1)
    assert only_looks.within(0.01, ASKED).norms > 5
