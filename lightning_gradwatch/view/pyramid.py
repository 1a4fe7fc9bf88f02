"""A series at every zoom: bins of doubling width, appended to as the run grows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.view.cells import (
    Cells,
    Counted,
    Values,
    concatenate,
    merge,
    pair,
    summarise,
)

#: Memory of one series. Past it the finest level is given up, and the next one is the finest.
MAX_BYTES = 64 * 2**20


class _Level:
    """Bins of one width, in arrays that grow by doubling."""

    def __init__(self, width: int, columns: int) -> None:
        self.width, self.columns, self.length = width, columns, 0
        # The narrowest bins have one value each: three equal arrays would be two too many.
        self._arrays = [np.empty((0, columns), np.float32) for _ in range(3 if width > 1 else 1)]
        self._counts: list[npt.NDArray[np.int32]] | None = None

    def append(self, cells: Cells) -> None:
        stop = self.length + len(cells)
        if stop > len(self._arrays[0]):
            room = max(stop, 2 * self.length, 16)
            self._arrays = [self._grown(array, room) for array in self._arrays]
            if self._counts is not None:
                self._counts = [self._grown(array, room) for array in self._counts]
        parts = (cells.least, cells.most, cells.mean) if self.width > 1 else (cells.values,)
        for array, values in zip(self._arrays, parts, strict=True):
            array[self.length : stop] = values
        if self.width > 1 and (cells.counted is not None or self._counts is not None):
            if self._counts is None:
                shape = self._arrays[0].shape
                self._counts = [np.full(shape, self.width, np.int32)]
                self._counts += [np.zeros(shape, np.int32) for _ in range(3)]
            for counts, found in zip(self._counts, cells.with_counts(), strict=True):
                counts[self.length : stop] = found
        self.length = stop

    def _grown(self, array: npt.NDArray[Any], room: int) -> npt.NDArray[Any]:
        larger = np.empty((room, self.columns), array.dtype)
        larger[: self.length] = array[: self.length]
        return larger

    def cells(self, first: int, last: int) -> Cells:
        part = slice(first, min(last, self.length))
        if self.width == 1:
            return summarise(self._arrays[0][part], 1)
        counted = None if self._counts is None else Counted(*(c[part] for c in self._counts))
        least, most, mean = (array[part] for array in self._arrays)
        return Cells(self.width, least, most, mean, counted)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (*self._arrays, *(self._counts or ())))


class Pyramid:
    """Bins of widths `base`, 2 `base`, 4 `base` and so on over a series of T rows.

    Bins start at multiples of their width, so that they stay where they are as the series grows.
    Memory stays below about `max_bytes`, whatever T is.

    Args:
        columns: Values in a row.
        base: Width of the narrowest bins, a power of two; 1 keeps every value.
        max_bytes: Memory past which the narrowest bins are given up.

    Example:
        >>> pyramid = Pyramid(columns=1, base=2)
        >>> pyramid.append(np.array([[1.0], [2.0], [9.0], [4.0], [5.0]], np.float32))
        >>> pyramid.cells(2, 0, 3).most.ravel().tolist()
        [2.0, 9.0, 5.0]
        >>> pyramid.cells(8, 0, 1).least.item(), pyramid.cells(8, 0, 1).most.item()
        (1.0, 9.0)
    """

    def __init__(self, columns: int, base: int = 1, max_bytes: int = MAX_BYTES) -> None:
        self.columns, self.base, self.length = columns, base, 0
        self._max_bytes = max_bytes
        self._levels = [_Level(base, columns)]
        self._waiting = np.empty((0, columns), np.float32)

    @property
    def nbytes(self) -> int:
        """Memory that the bins take."""
        return sum(level.nbytes for level in self._levels) + self._waiting.nbytes

    def append(self, values: Values) -> None:
        """Add rows, shape (T, C); `ABSENT` where there is nothing."""
        self.length += len(values)
        if len(self._waiting):
            values = np.concatenate([self._waiting, values])
        width = self._levels[0].width
        whole = len(values) - len(values) % width
        self._waiting = values[whole:].copy()
        if whole:
            self._levels[0].append(summarise(values[:whole], width))
            self._build()

    def _build(self) -> None:
        """Bring every level up to the one below it."""
        for i, level in enumerate(self._levels):
            if level.length < 2:
                break
            if i + 1 == len(self._levels):
                self._levels.append(_Level(2 * level.width, self.columns))
            above = self._levels[i + 1]
            start, stop = 2 * above.length, level.length - level.length % 2
            if stop > start:
                above.append(pair(level.cells(start, stop)))
        self._trim()

    def _trim(self) -> None:
        # Only with nothing left over at the finest level: its odd last bin would be lost.
        while (
            self.nbytes > self._max_bytes
            and len(self._levels) > 2
            and self._levels[0].length % 2 == 0
        ):
            del self._levels[0]
            self.base = self._levels[0].width

    def cells(self, width: int, first: int, last: int) -> Cells:
        """Return the bins `first` to `last` (not included) of a width.

        Args:
            width: A power of two, at least `base`.
            first: Index of the first bin.
            last: Index after the last bin; the last one may be incomplete.

        Raises:
            ValueError: The bins are narrower than the narrowest kept.
        """
        if width < self.base:
            raise ValueError(f"bins of {width} rows are not kept, only of {self.base} and more")
        while self._levels[-1].width < width:
            self._levels.append(_Level(2 * self._levels[-1].width, self.columns))
        level = next(level for level in self._levels if level.width == width)
        cells = level.cells(first, last)
        if last > level.length and (rest := self._rest(level)) is not None:
            cells = concatenate(cells, rest) if first < level.length else rest
        return cells

    def _rest(self, level: _Level) -> Cells | None:
        """Return what no bin of this level holds yet, as one bin; None if there is nothing."""
        done = level.length * level.width
        parts = []
        for lower in reversed(self._levels[: self._levels.index(level)]):
            if lower.length * lower.width > done:
                parts.append(lower.cells(lower.length - 1, lower.length))
                done = lower.length * lower.width
        if len(self._waiting):
            parts.append(summarise(self._waiting, len(self._waiting)))
        return merge(parts, level.width) if parts else None
