"""Bins of recorded values: least, most, mean and what was not finite, exact at any width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int32]

#: Stands for "nothing measured" in an array of values: it was another optimizer's turn, say.
ABSENT = np.float32(-np.inf)

#: Stands for "measured, and there is no gradient", which is neither a zero nor nothing measured.
NO_GRADIENT = np.float32(np.finfo(np.float32).min)

#: How far from the median a zero counts as, in decades: above noise, below a blow-up.
ZERO_DECADES = 3.0

#: What a plane can show.
STATS = ("extreme", "min", "mean", "max", "nonfinite")


@dataclass(frozen=True)
class Counted:
    """How many values of each bin are finite, NaN, Inf, no gradient; the rest is absent.

    Shapes (B, C).
    """

    finite: Counts
    nan: Counts
    inf: Counts
    none: Counts

    def __getitem__(self, part: slice) -> Counted:
        return Counted(*(each[part] for each in self))

    def __iter__(self) -> Iterator[Counts]:
        yield from (self.finite, self.nan, self.inf, self.none)


@dataclass(frozen=True)
class Cells:
    """B bins of C columns.

    Attributes:
        width: Values in a bin; the last bin may hold fewer.
        least: Smallest finite value, shape (B, C); Inf without one.
        most: Largest finite value, shape (B, C); -Inf without one.
        mean: Mean of the finite values, shape (B, C); 0 without one.
        counted: What they are made of; None if every value is there and finite.
    """

    width: int
    least: Values
    most: Values
    mean: Values
    counted: Counted | None = None

    def __len__(self) -> int:
        return len(self.least)

    def __getitem__(self, part: slice) -> Cells:
        counted = None if self.counted is None else self.counted[part]
        return Cells(self.width, self.least[part], self.most[part], self.mean[part], counted)

    def with_counts(self) -> Counted:
        """Return the counts, also where nothing is missing."""
        if self.counted is not None:
            return self.counted
        zero = np.zeros(self.least.shape, np.int32)
        return Counted(np.full(self.least.shape, self.width, np.int32), zero, zero, zero)

    @property
    def values(self) -> Values:
        """The values themselves, of bins that hold one each, shape (B, C)."""
        of = self.counted
        if of is None:
            return self.least
        values = np.where(of.finite > 0, self.least, _nothing(of))
        values = np.where(of.inf > 0, np.float32(np.inf), values)
        return np.asarray(np.where(of.nan > 0, np.float32(np.nan), values), np.float32)


def summarise(values: Values, width: int) -> Cells:
    """Put each `width` rows into a bin.

    Args:
        values: Shape (T, C), T a multiple of `width`; `ABSENT` where nothing was measured,
            `NO_GRADIENT` where there was none.
        width: Rows of a bin.

    Returns:
        T / width bins.

    Example:
        >>> cells = summarise(np.array([[1.0], [3.0], [np.nan], [ABSENT]], np.float32), 2)
        >>> cells.least.ravel().tolist(), cells.most.ravel().tolist()
        ([1.0, inf], [3.0, -inf])
        >>> cells.counted.nan.ravel().tolist()
        [0, 1]
    """
    split = values.reshape(len(values) // width, width, values.shape[1])
    finite = are_numbers(split)
    if finite.all():
        mean = split[:, 0] if width == 1 else split.mean(axis=1, dtype=np.float64)
        least, most = split.min(axis=1), split.max(axis=1)
        return Cells(width, least, most, np.asarray(mean, np.float32))
    present = finite.sum(axis=1, dtype=np.int32)
    total = np.where(finite, split, np.float32(0)).sum(axis=1, dtype=np.float64)
    return Cells(
        width,
        np.where(finite, split, np.float32(np.inf)).min(axis=1),
        np.where(finite, split, ABSENT).max(axis=1),
        (total / np.maximum(present, 1)).astype(np.float32),
        Counted(
            present,
            np.isnan(split).sum(axis=1, dtype=np.int32),
            np.isposinf(split).sum(axis=1, dtype=np.int32),
            (split == NO_GRADIENT).sum(axis=1, dtype=np.int32),
        ),
    )


def are_numbers(values: Values) -> npt.NDArray[np.bool_]:
    """Return which values are finite numbers that were measured.

    Example:
        >>> are_numbers(np.array([0.0, np.nan, ABSENT, NO_GRADIENT], np.float32)).tolist()
        [True, False, False, False]
    """
    finite: npt.NDArray[np.bool_] = np.isfinite(values)
    # A minimum is cheaper than a comparison of each, and most often there is nothing to compare.
    if values.size and not values.min() > NO_GRADIENT:
        finite &= values != NO_GRADIENT
    return finite


def _nothing(of: Counted) -> Values:
    """Return what stands for no number: `NO_GRADIENT` where any step had none, else `ABSENT`."""
    return np.asarray(np.where(of.none > 0, NO_GRADIENT, ABSENT), np.float32)


def pair(cells: Cells) -> Cells:
    """Merge each two neighbouring bins of an even number of them."""
    counted = None
    if cells.counted is None:
        mean = 0.5 * cells.mean[::2] + 0.5 * cells.mean[1::2]
    else:
        of = cells.counted
        counted = Counted(*(each[::2] + each[1::2] for each in of))
        share = (of.finite[::2] / np.maximum(counted.finite, 1)).astype(np.float32)
        mean = cells.mean[::2] * share + cells.mean[1::2] * (1 - share)
    return Cells(
        2 * cells.width,
        np.minimum(cells.least[::2], cells.least[1::2]),
        np.maximum(cells.most[::2], cells.most[1::2]),
        np.asarray(mean, np.float32),
        counted,
    )


def merge(parts: Sequence[Cells], width: int) -> Cells:
    """Merge bins of any widths, one bin each, into one that is called `width` wide."""
    of = [part.with_counts() for part in parts]
    finite = sum(each.finite for each in of)
    weights = [each.finite / np.maximum(finite, 1) for each in of]
    mean = sum(part.mean * weight for part, weight in zip(parts, weights, strict=True))
    return Cells(
        width,
        np.minimum.reduce([part.least for part in parts]),
        np.maximum.reduce([part.most for part in parts]),
        np.asarray(mean, np.float32),
        Counted(*(np.add.reduce(each, dtype=np.int32) for each in zip(*of, strict=True))),
    )


def concatenate(cells: Cells, more: Cells) -> Cells:
    """Return the bins of both, one behind the other."""
    counted = None
    if cells.counted is not None or more.counted is not None:
        one, two = cells.with_counts(), more.with_counts()
        counted = Counted(*map(np.concatenate, zip(one, two, strict=True)))
    return Cells(
        cells.width,
        np.concatenate([cells.least, more.least]),
        np.concatenate([cells.most, more.most]),
        np.concatenate([cells.mean, more.mean]),
        counted,
    )


def plane(cells: Cells, stat: str, median: Values, log: npt.NDArray[np.bool_]) -> Values:
    """Return one number for each bin.

    Args:
        cells: The bins, shape (B, C).
        stat: One of `STATS`. `extreme` is the value farthest from the median; NaN and Inf win.
        median: Median of each column, shape (C,); NaN if unknown.
        log: Whether a column's distances are taken between logarithms, shape (C,).

    Returns:
        Shape (B, C); NaN where nothing was finite, `NO_GRADIENT` where there was none,
        `ABSENT` where nothing was measured.
    """
    of = cells.counted
    if stat == "nonfinite":
        if of is None:
            return np.zeros(cells.least.shape, np.float32)
        return np.asarray(of.nan + of.inf, np.float32)
    if stat == "extreme":
        values = np.where(_above(cells, median, log), cells.most, cells.least)
    else:
        values = {"min": cells.least, "mean": cells.mean, "max": cells.most}[stat]
    if of is None:
        return np.asarray(values, np.float32)
    bad = of.nan + of.inf > 0
    values = np.where(of.finite > 0, values, np.where(bad, np.float32(np.nan), _nothing(of)))
    if stat == "extreme":
        values = np.where(of.inf > 0, np.float32(np.inf), values)
        values = np.where(of.nan > 0, np.float32(np.nan), values)
    return np.asarray(values, np.float32)


def _above(cells: Cells, median: Values, log: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return where the largest value is farther from the median than the smallest."""
    if cells.width == 1:
        return np.ones(cells.least.shape, np.bool_)
    middle = np.where(np.isfinite(median), median, np.float32(0))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        # Products and ratios instead of logarithms: |log a| > |log b| for a above and b below.
        up = np.where(log, cells.most / middle, cells.most - middle)
        down = np.where(log, middle / cells.least, middle - cells.least)
        down = np.where(log & (cells.least == 0), np.float32(10.0**ZERO_DECADES), down)
        # All below the median, or all above it: the other end lies nearer.
        above: npt.NDArray[np.bool_] = ~(up < down) | ~(middle > 0) & log
    return above
