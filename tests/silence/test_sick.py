"""What ails a model is told in time, by its name, and with a first remedy that heals it."""

from __future__ import annotations

import functools
import re

import pytest

from lightning_gradwatch import Finding
from tests.silence.case import Outcome
from tests.silence.sick import CASES
from tests.silence.sick.illness import Alarms, Illness, changes, fall_ill, heal

#: A sick model misses its score by so much at least.
CLEARLY = 0.7


@functools.cache
def ill(name: str) -> tuple[Outcome, Alarms]:
    return fall_ill(CASES[name])


def cases(test: str) -> pytest.MarkDecorator:
    """Parametrize with all cases; those that are told wrongly here are expected to fail."""
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(case, marks=pytest.mark.xfail(strict=True, reason=case.wrong[test]))
            if test in case.wrong
            else case
            for case in CASES.values()
        ],
        ids=list(CASES),
    )


@functools.cache
def healed(name: str) -> Outcome:
    """The twin that the first remedy makes."""
    return heal(CASES[name], changes(CASES[name], first(name).remedies[0]))


def first(name: str) -> Finding:
    """Return the finding that the case is about."""
    outcome = ill(name)[0]
    found = [f for f in outcome.told if f.code == CASES[name].code]
    assert found, f"told only {[(f.code, f.summary) for f in outcome.told]}"
    return found[0]


@cases("code")
def test_a_sick_model_is_told_so_before_half_of_the_run_is_over(case: Illness) -> None:
    outcome, alarms = ill(case.name)
    assert outcome.score < CLEARLY * outcome.at_least, "this run is not sick"
    told = [f.code for f in outcome.told]
    assert told, "nothing was said"
    assert told[0] == case.code, outcome.told[0].summary
    assert set(told) <= {case.code, *case.also}
    assert told.count(case.code) == 1
    assert alarms.first[case.code] < alarms.steps / 2


@cases("words")
def test_what_ails_it_is_named(case: Illness) -> None:
    found = first(case.name)
    assert set(case.layers) <= set(found.layers)
    assert not set(case.spared) & set(found.layers)
    assert re.search(case.summary, found.summary), found.summary
    assert re.search(case.cause, found.cause), found.cause


@cases("remedy")
def test_the_first_remedy_heals(case: Illness) -> None:
    outcome = healed(case.name)
    assert outcome.score >= outcome.at_least


@cases("after")
def test_nothing_is_said_of_the_healed_twin(case: Illness) -> None:
    known = "remedy" not in case.wrong
    outcome = healed(case.name) if known else heal(case, case.cure or case.change)
    assert outcome.score >= outcome.at_least
    assert not [f"{f.code}: {f.summary}" for f in outcome.told]
