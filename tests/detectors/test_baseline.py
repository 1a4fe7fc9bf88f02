from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_gradwatch.detectors.baseline import Baseline


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 0.0, -1.0])
def test_no_poison_enters(poison):
    baseline = Baseline(window=5)
    for value in (1.0, poison, 10.0, poison, 100.0):
        baseline.push(value)
    assert len(baseline) == 3
    assert baseline.median == pytest.approx(1.0)
    assert math.isfinite(baseline.spread)


def test_empty_knows_nothing():
    assert math.isnan(Baseline().median)
    assert math.isnan(Baseline().gap(3.0))
    assert Baseline(floor=0.2).spread == 0.2


@given(st.lists(st.floats(1e-30, 1e30), min_size=1, max_size=60), st.integers(1, 20))
def test_agrees_with_the_plain_definition(values, window):
    baseline = Baseline(window=window, floor=1e-9)
    for value in values:
        baseline.push(value)
    logs = [math.log10(v) for v in values][-window:]
    middle = statistics.median(logs)
    mad = statistics.median(abs(x - middle) for x in logs)
    assert baseline.median == pytest.approx(middle)
    assert baseline.spread == pytest.approx(max(1e-9, 1.4826 * mad), abs=1e-9)


def test_state_continues_where_it_was():
    one, other = Baseline(window=7), Baseline(window=7)
    for value in (3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0):
        one.push(value)
    other.load_state_dict(one.state_dict())
    for value in (5.0, 3.0, 5.0):
        one.push(value)
        other.push(value)
    assert (other.median, other.spread) == (one.median, one.spread)
    assert len(other.state_dict()) == 7
