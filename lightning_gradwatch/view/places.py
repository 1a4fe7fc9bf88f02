"""Where the columns of a sampled series are on disk, for when memory holds their bins only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.view.growing import Growing


class Places:
    """For each column the segment it is in and its place in the segment's file."""

    def __init__(self) -> None:
        self._table = Growing(np.int64, (2,))

    def append(self, segment: int, places: npt.ArrayLike) -> None:
        """Add columns, in the order in which the series has them."""
        found = np.asarray(places, np.int64)
        self._table.append(np.stack([np.full(len(found), segment), found], axis=1))

    def __getitem__(self, part: slice) -> list[tuple[int, int]]:
        return [(segment, place) for segment, place in self._table.values[part].tolist()]

    def stretches(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield segment, first place and place after the last of neighbours in one file.

        Example:
            >>> places = Places()
            >>> places.append(0, [0, 1, 4])
            >>> places.append(1, [5])
            >>> list(places.stretches(0, 4))
            [(0, 0, 2), (0, 4, 5), (1, 5, 6)]
        """
        table = self._table.values[start:stop]
        if not len(table):
            return
        apart = np.flatnonzero((np.diff(table[:, 0]) != 0) | (np.diff(table[:, 1]) != 1))
        firsts, lasts = np.append(0, apart + 1), np.append(apart, len(table) - 1)
        for a, b in zip(firsts.tolist(), lasts.tolist(), strict=True):
            yield int(table[a, 0]), int(table[a, 1]), int(table[b, 1]) + 1
