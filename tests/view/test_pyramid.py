"""Bins say exactly what is in them, at every width, however the run arrived."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_gradwatch.view.cells import (
    ABSENT,
    NO_GRADIENT,
    Values,
    are_numbers,
    plane,
    summarise,
)
from lightning_gradwatch.view.pyramid import Pyramid

SPECIAL = [np.nan, np.inf, ABSENT, NO_GRADIENT, 0.0]
LOG = np.array([True, True])


def values_of(seed: int, steps: int, share: float = 0.2) -> Values:
    """A run of two rows with NaN, Inf, zeros and gaps in it."""
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(size=(steps, 2)) * 3).astype(np.float32)
    odd = rng.random(values.shape) < share
    return np.where(odd, rng.choice(SPECIAL, values.shape), values).astype(np.float32)


def by_hand(values: Values, width: int) -> list[dict[str, list[float]]]:
    """Each bin of row 0, from the values themselves."""
    bins = []
    for start in range(0, len(values), width):
        part = values[start : start + width, 0]
        finite = part[are_numbers(part)].astype(np.float64)
        bins.append(
            {
                "finite": len(finite),
                "nan": int(np.isnan(part).sum()),
                "inf": int(np.isposinf(part).sum()),
                "none": int((part == NO_GRADIENT).sum()),
                "least": finite.min() if len(finite) else np.inf,
                "most": finite.max() if len(finite) else -np.inf,
                "mean": finite.mean() if len(finite) else 0.0,
            }
        )
    return bins


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    chunks=st.lists(st.integers(0, 40), max_size=12),
    base=st.sampled_from([1, 2, 8]),
    share=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_bins_are_what_their_values_are(seed, chunks, base, share):
    values = values_of(seed, sum(chunks), share)
    pyramid = Pyramid(2, base)
    done = 0
    for chunk in chunks:
        pyramid.append(values[done : done + chunk])
        done += chunk
    for width in (1, 2, 4, 16, 64, 1024):
        if width < base:
            with pytest.raises(ValueError, match=f"of {width} rows"):
                pyramid.cells(width, 0, 1)
            continue
        cells = pyramid.cells(width, 0, -(-len(values) // width))
        of = cells.with_counts()
        expected = by_hand(values, width)
        assert len(cells) == len(expected)
        for i, bin_ in enumerate(expected):
            counts = (of.finite[i, 0], of.nan[i, 0], of.inf[i, 0], of.none[i, 0])
            assert counts == (bin_["finite"], bin_["nan"], bin_["inf"], bin_["none"])
            assert cells.least[i, 0] == np.float32(bin_["least"])
            assert cells.most[i, 0] == np.float32(bin_["most"])
            assert cells.mean[i, 0] == pytest.approx(bin_["mean"], rel=1e-5)


def test_one_step_of_20_000_is_seen_at_every_width():
    values = np.full((20_000, 2), 1.0, np.float32)
    values[12_345, 0] = 1e4
    values[777, 1] = 1e-6
    pyramid = Pyramid(2, 16)
    for start in range(0, 20_000, 256):
        pyramid.append(values[start : start + 256])
    median = np.ones(2, np.float32)
    width = 16
    while width <= 32_768:
        shown = plane(pyramid.cells(width, 0, -(-20_000 // width)), "extreme", median, LOG)
        assert shown[12_345 // width, 0] == np.float32(1e4)
        assert shown[777 // width, 1] == np.float32(1e-6)
        assert (shown != 1.0).sum() == 2
        width *= 2


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), steps=st.integers(1, 300))
def test_the_picture_does_not_depend_on_the_width(seed, steps):
    """A wide bin shows what one of its narrow bins shows, and none of them is farther out."""
    values = values_of(seed, steps, 0.0)
    pyramid = Pyramid(2, 1)
    pyramid.append(values)
    median = np.median(values, axis=0)

    def distance(shown):
        return np.abs(np.log10(shown / median))

    for width in (2, 8, 64):
        wide = plane(pyramid.cells(width, 0, -(-steps // width)), "extreme", median, LOG)
        narrow = plane(pyramid.cells(1, 0, steps), "extreme", median, LOG)
        for i in range(len(wide)):
            part = narrow[i * width : (i + 1) * width]
            assert (wide[i] == part).any(axis=0).all()
            assert (distance(wide[i]) >= distance(part).max(axis=0) - 1e-5).all()


def test_nan_inf_nothing_and_zero_are_told_apart():
    values = np.array([[np.nan], [np.inf], [ABSENT], [0.0], [2.0], [NO_GRADIENT]], np.float32)
    cells = summarise(values, 1)
    median, log = np.ones(1, np.float32), np.array([True])
    shown = plane(cells, "extreme", median, log).ravel().tolist()
    assert shown[1:] == [np.inf, -np.inf, 0.0, 2.0, float(NO_GRADIENT)]
    assert np.isnan(shown[0])
    assert plane(cells, "nonfinite", median, log).ravel().tolist() == [1, 1, 0, 0, 0, 0]
    least = plane(cells, "min", median, log).ravel()
    assert np.isnan(least[:2]).all()
    assert least[2:].tolist() == [-np.inf, 0.0, 2.0, float(NO_GRADIENT)]
    together = summarise(values[:4], 4)
    assert np.isnan(plane(together, "extreme", median, log)).all()
    assert plane(together, "max", median, log).tolist() == [[0.0]]
    # Any number hides that there was nothing; no gradient at one step is more than nothing at all.
    for pair, word in (((NO_GRADIENT, 3.0), 3.0), ((ABSENT, NO_GRADIENT), NO_GRADIENT)):
        one = summarise(np.array(pair, np.float32)[:, np.newaxis], 2)
        assert plane(one, "extreme", median, log).tolist() == [[word]]
        assert plane(one, "mean", median, log).tolist() == [[word]]


def test_a_zero_is_seen_among_noise_but_hides_no_explosion():
    median, log = np.ones(1, np.float32), np.array([True])
    noise = summarise(np.array([[0.5], [0.0], [3.0], [1.0]], np.float32), 4)
    assert plane(noise, "extreme", median, log).tolist() == [[0.0]]
    spike = summarise(np.array([[0.5], [0.0], [1e6], [1.0]], np.float32), 4)
    assert plane(spike, "extreme", median, log).tolist() == [[1e6]]


def test_memory_is_bounded_and_what_is_left_is_right():
    pyramid = Pyramid(4, 1, max_bytes=200_000)
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(size=(50_000, 4))).astype(np.float32)
    for start in range(0, 50_000, 333):
        pyramid.append(values[start : start + 333])
        assert pyramid.nbytes < 500_000
    assert pyramid.base > 1
    width = pyramid.base
    cells = pyramid.cells(width, 0, -(-50_000 // width))
    whole = 50_000 // width * width
    assert np.array_equal(cells.most[: whole // width], values[:whole].reshape(-1, width, 4).max(1))
    assert cells.most.max() == values.max()
    assert pyramid.cells(2**20, 0, 1).least.min() == values.min()


def test_nothing_and_no_rows():
    empty = Pyramid(0)
    empty.append(np.zeros((5, 0), np.float32))
    assert empty.cells(4, 0, 2).least.shape == (2, 0)
    assert len(Pyramid(3).cells(1, 0, 0)) == 0
