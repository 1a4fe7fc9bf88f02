"""One quantity over the run: its rows, its steps, and its bins at every zoom."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.sample import Ints
from lightning_gradwatch.view.cells import Cells, Values, are_numbers, concatenate, summarise
from lightning_gradwatch.view.growing import Growing
from lightning_gradwatch.view.pyramid import MAX_BYTES, Pyramid

#: Most values read from disk to answer one question; past it bins are wider than asked for.
READ_AT_ONCE = 16_000_000

#: Most bins in one answer, over all rows.
MAX_CELLS = 4_000_000

#: Numbers kept to take medians from, and the least and most rows they are taken on.
SAMPLED, FEWEST, MOST = 4_000_000, 256, 4096

#: Multiples of the golden ratio, modulo one, in integers: as even as numbers can be spread.
_GOLDEN, _FULL = np.uint64(0x9E3779B1), np.uint64(2**32)


@dataclass(frozen=True)
class Row:
    """A row of a series.

    Attributes:
        name: What it is of: a layer, a module, a time step, a strip.
        kind: Class of the module; empty if it is none.
        layer: Index of the layer; None if it is none.
        log: Whether it spans decades, so that distances are those of logarithms.
    """

    name: str
    kind: str = ""
    layer: int | None = None
    log: bool = True


@dataclass(frozen=True)
class Bins:
    """Bins of a series, in a window.

    Attributes:
        cells: Their values, shape (B, C).
        first: First step of each bin, shape (B,).
        last: Last step of each bin, shape (B,).
        columns: Recorded steps in each bin, shape (B,).
    """

    cells: Cells
    first: Ints
    last: Ints
    columns: Ints


class Series:
    """A quantity with C rows, measured at T steps.

    Args:
        name: What it is called in addresses.
        title: What it is called in the page.
        rows: What the C rows are.
        base: Width of the narrowest bins that are kept; 1 keeps every value in memory.
        read: Reads values `start` to `stop` from disk, where narrower bins are asked for.
        max_bytes: Memory of the bins.
        read_at_once: Most values read to answer one question; past it bins are wider than asked.
    """

    def __init__(
        self,
        name: str,
        title: str,
        rows: Sequence[Row],
        *,
        base: int = 1,
        read: Callable[[int, int], Iterator[Values]] | None = None,
        max_bytes: int = MAX_BYTES,
        read_at_once: int = READ_AT_ONCE,
    ) -> None:
        self.name, self.title, self.rows = name, title, tuple(rows)
        self.log = np.array([row.log for row in rows], np.bool_)
        self._read, self._read_at_once = read, read_at_once
        self._pyramid = Pyramid(len(rows), base, max_bytes)
        self._steps = Growing(np.int64)
        self._highest = np.iinfo(np.int64).min
        self._limit = int(_FULL)  # columns whose place is below it are kept
        self._most = min(MOST, max(FEWEST, SAMPLED // max(1, len(rows))))
        self._sample = Growing(np.float32, (len(rows),))
        self._places = Growing(np.uint64)
        self._points: tuple[tuple[int, int], npt.NDArray[np.float32]] | None = None
        self._low = np.full(len(rows), np.inf, np.float32)
        self._high = np.full(len(rows), -np.inf, np.float32)
        self._bad = np.zeros(len(rows), np.int64)

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return self._pyramid.nbytes + self._sample.nbytes + self._steps.nbytes

    @property
    def steps(self) -> Ints:
        """Steps, non-decreasing, shape (T,)."""
        return np.asarray(self._steps.values, np.int64)

    @property
    def present(self) -> bool:
        """Whether there is anything to show; shares that are all zero are not worth a map."""
        found = np.isfinite(np.where(self.log, self._high, self._low))
        return bool(found.any() or self._bad.any())

    def extend(self, steps: Ints, values: Values) -> None:
        """Add columns.

        Args:
            steps: Steps, shape (T,).
            values: Shape (T, C); `ABSENT` where nothing was measured, `NO_GRADIENT` where there
                was none.
        """
        if not len(steps):
            return
        # With several writers a step may come late; windows are found by bisection all the same.
        ordered = np.maximum.accumulate(np.maximum(steps, self._highest))
        self._highest = int(ordered[-1])
        self._keep(len(self), values)
        self._steps.append(ordered)
        self._pyramid.append(values)
        if not values.size:
            return
        finite = are_numbers(values)
        if finite.all():
            positive = values > 0 if values.min() <= 0 else finite
            self._high = np.maximum(self._high, values.max(axis=0))
        else:
            positive = finite & (values > 0)
            self._high = np.maximum(self._high, np.where(finite, values, -np.inf).max(axis=0))
            self._bad += (np.isnan(values) | np.isposinf(values)).sum(axis=0)
        least = values if positive.all() else np.where(positive, values, np.float32(np.inf))
        self._low = np.minimum(self._low, least.min(axis=0))

    def _keep(self, start: int, values: Values) -> None:
        """Keep columns spread evenly over the run, to take medians from.

        Every n-th one would not do: where optimizers take turns, all would be those of one.
        """
        places = (np.arange(start, start + len(values), dtype=np.uint64) * _GOLDEN) % _FULL
        chosen = places < self._limit
        self._sample.append(values[chosen])
        self._places.append(places[chosen])
        while len(self._sample) > self._most:
            self._limit //= 2
            left = self._places.values < self._limit
            sample, places = self._sample.values[left], self._places.values[left]
            self._sample = Growing(np.float32, (len(self.rows),))
            self._places = Growing(np.uint64)
            self._sample.append(sample)
            self._places.append(places)

    def _quantiles(self) -> npt.NDArray[np.float32]:
        known = len(self._sample)
        if self._points is None or self._points[0] != (self._limit, known):
            values = np.asarray(self._sample.values, np.float32)
            values = np.where(are_numbers(values), values, np.float32(np.nan)).T
            values = np.sort(values, axis=1)  # NaN comes last
            count = np.isfinite(values).sum(axis=1)
            points = np.full((3, len(self.rows)), np.nan, np.float32)
            for i, share in enumerate((0.05, 0.5, 0.95)):
                place = np.round(share * np.maximum(count - 1, 0)).astype(np.intp)
                if known:
                    points[i] = values[np.arange(len(values)), place]
            self._points = (self._limit, known), points
        return self._points[1]

    @property
    def low(self) -> Values:
        """5 % point of each row's finite values, on steps spread over the run, shape (C,)."""
        return np.asarray(self._quantiles()[0])

    @property
    def median(self) -> Values:
        """Median of each row's finite values, on steps spread over the run, shape (C,)."""
        return np.asarray(self._quantiles()[1])

    @property
    def high(self) -> Values:
        """95 % point of each row's finite values, on steps spread over the run, shape (C,)."""
        return np.asarray(self._quantiles()[2])

    @property
    def least(self) -> Values:
        """Smallest positive value of each row, shape (C,); Inf without one."""
        return self._low

    @property
    def most(self) -> Values:
        """Largest finite value of each row, shape (C,); -Inf without one."""
        return self._high

    @property
    def nonfinite(self) -> npt.NDArray[np.int64]:
        """Number of steps with NaN or Inf, shape (C,)."""
        return self._bad

    def column(self, index: int) -> Values | None:
        """Return the exact values of a column, shape (C,); None if they are not kept."""
        if self._pyramid.base == 1:
            return np.asarray(self._pyramid.cells(1, index, index + 1).values[0])
        if self._read is not None:
            return np.asarray(next(self._read(index, index + 1))[0])
        return None

    def bins(self, start: int | None, stop: int | None, most: int) -> Bins:
        """Return the bins of a window.

        Args:
            start: First step; None for the first there is.
            stop: Last step, included; None for the last there is.
            most: Most bins wanted.
        """
        steps = self.steps
        a = 0 if start is None else int(np.searchsorted(steps, start, "left"))
        b = len(steps) if stop is None else int(np.searchsorted(steps, stop, "right"))
        columns = len(self.rows)
        most = max(1, min(most, MAX_CELLS // max(1, columns)))
        width = 1
        while b > a and (b - 1) // width - a // width + 1 > most:
            width *= 2
        base = self._pyramid.base
        by_hand = width < base and self._read is not None
        by_hand = by_hand and a < b and (b - a) * columns <= self._read_at_once
        if not by_hand:
            width = max(width, base)
        first, last = (a // width, (b - 1) // width + 1) if b > a else (0, 0)
        if by_hand:
            cells = self._by_hand(width, first * width, min(last * width, len(steps)))
        else:
            cells = self._pyramid.cells(width, first, last)
        starts = np.arange(first, last) * width
        ends = np.minimum(starts + width, len(steps))
        return Bins(cells, steps[starts], steps[ends - 1], ends - starts)

    def _by_hand(self, width: int, start: int, stop: int) -> Cells:
        """Bin values that are read from disk."""
        assert self._read is not None  # the caller has made sure
        parts: list[Cells] = []
        waiting = np.empty((0, len(self.rows)), np.float32)
        for values in self._read(start, stop):
            values = np.concatenate([waiting, values]) if len(waiting) else values
            whole = len(values) - len(values) % width
            if whole:
                parts.append(summarise(values[:whole], width))
            waiting = values[whole:]
        if len(waiting):
            rest = summarise(waiting, len(waiting))
            counted = rest.with_counts()
            parts.append(Cells(width, rest.least, rest.most, rest.mean, counted))
        return reduce(concatenate, parts)
