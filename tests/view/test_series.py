"""Medians from a sample: of runs of any length, of optimizers that take turns."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_gradwatch.view.cells import ABSENT, NO_GRADIENT
from lightning_gradwatch.view.series import MOST, Row, Series


def filled(values: np.ndarray, chunk: int = 333) -> Series:
    series = Series("x", "x", [Row(str(i)) for i in range(values.shape[1])])
    for start in range(0, len(values), chunk):
        part = values[start : start + chunk].astype(np.float32)
        series.extend(np.arange(start, start + len(part)), part)
    return series


def test_medians_of_a_long_run():
    values = np.random.default_rng(0).lognormal([0.0, 2.0, -5.0], size=(50_000, 3))
    series = filled(values)
    for share, found in ((5, series.low), (50, series.median), (95, series.high)):
        assert found == pytest.approx(np.percentile(values, share, axis=0), rel=0.12)
    assert series.nbytes < 5_000_000
    again = filled(values, 17)
    assert again.median.tolist() == series.median.tolist()  # however it arrived


def test_medians_of_a_drifting_run_are_of_all_of_it():
    values = np.linspace(1.0, 3.0, 40_000)[:, np.newaxis]
    assert filled(values).median[0] == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("period", [2, 3, 4, 8])
def test_optimizers_that_take_turns(period: int):
    steps = np.arange(30_000)
    values = np.where(steps[:, np.newaxis] % period == np.arange(period), 2.0, ABSENT)
    series = filled(values)
    assert series.median.tolist() == [2.0] * period


def test_short_runs_are_exact_and_the_median_follows_growth():
    series = filled(np.arange(1.0, 6.0)[:, np.newaxis])
    assert series.median.tolist() == [3.0]
    series.extend(np.arange(5, 10), np.full((5, 1), 9.0, np.float32))
    assert series.median.tolist() == [5.0] or series.median.tolist() == [9.0]


def test_the_sample_halves_and_the_median_is_taken_anew():
    series = filled(np.full((MOST, 1), 1.0))
    assert series.median.tolist() == [1.0]
    half = len(series._sample)
    series.extend(np.arange(MOST, 6 * MOST), np.full((5 * MOST, 1), 2.0, np.float32))
    assert len(series._sample) <= half
    assert series.median.tolist() == [2.0]


def test_nothing_finite():
    series = filled(np.array([[np.nan, np.inf, ABSENT]]))
    assert np.isnan(series.median).all()
    assert series.nonfinite.tolist() == [1, 1, 0]
    assert series.present
    assert not filled(np.full((3, 2), ABSENT)).present


def test_zeros_are_something_to_show_and_no_gradient_is_not():
    zeros = filled(np.zeros((5, 2)))
    assert zeros.present
    assert (zeros.median.tolist(), zeros.most.tolist()) == ([0.0, 0.0], [0.0, 0.0])
    nothing = filled(np.full((5, 2), NO_GRADIENT))
    assert not nothing.present
    assert np.isnan(nothing.median).all()
    mixed = filled(np.array([[NO_GRADIENT, 2.0], [4.0, NO_GRADIENT]]))
    assert (mixed.median.tolist(), mixed.most.tolist()) == ([4.0, 2.0], [4.0, 2.0])
    assert mixed.nonfinite.tolist() == [0, 0]
    shares = Series("zeros", "shares", [Row("0", log=False)])
    shares.extend(np.arange(5), np.zeros((5, 1), np.float32))
    assert not shares.present
