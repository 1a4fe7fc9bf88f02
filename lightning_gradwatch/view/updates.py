"""What sampled steps did to the weights: taken in from the tables of updates, and read again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lightning_gradwatch.recording.tables import Rows
from lightning_gradwatch.sample import Bools, Ints
from lightning_gradwatch.view.cells import Values
from lightning_gradwatch.view.measured import Columns, updates_by_layer
from lightning_gradwatch.view.places import Places
from lightning_gradwatch.view.segment import Segment
from lightning_gradwatch.view.shown import UPDATES, Shown

_NEVER = np.iinfo(np.int64).max


class Watched:
    """From which step on each parameter of an optimizer has been measured.

    In the table of updates NaN stands for "not measured" and for a NaN alike. What has been a
    number once is measured: from there on, a NaN is one, of weights that training has spoiled.
    """

    def __init__(self) -> None:
        self._first: dict[int, Ints] = {}

    def learn(self, rows: Rows) -> None:
        """Take in rows, in the order of their steps."""
        found = ~(np.isnan(rows["weight_norm"]) & np.isnan(rows["update_norm"]))
        for who in np.unique(rows["optimizer"]).tolist():
            own = rows["optimizer"] == who
            steps, there = rows["step"][own], found[own]
            first = np.where(there.any(axis=0), steps[there.argmax(axis=0)], _NEVER)
            known = self._first.get(who)
            self._first[who] = first if known is None else np.minimum(known, first)

    def there(self, rows: Rows) -> Bools:
        """Return what was measured in rows that have been taken in, shape (U, P)."""
        there = np.zeros(rows["weight_norm"].shape, np.bool_)
        for who, first in self._first.items():
            own = rows["optimizer"] == who
            there[own] = rows["step"][own][:, np.newaxis] >= first
        return there


class UpdateFeed:
    """Takes in the rows of updates, from all segments.

    Args:
        run: Where the series are.
        columns: Brings the layers of a segment under those of the run.
    """

    def __init__(self, run: Shown, columns: Callable[[Segment], Columns]) -> None:
        self._run, self._columns = run, columns
        self._places = Places()
        self._segments: dict[int, Segment] = {}
        self._watched: dict[int, Watched] = {}

    def take(self, segments: Sequence[Segment]) -> None:
        """Take in what is new."""
        for segment in segments:
            self._segments[segment.number] = segment
            watched = self._watched.setdefault(segment.number, Watched())
            at = segment.updates.rows
            segment.updates.scan()
            for rows in segment.updates.read(at, segment.updates.rows):
                watched.learn(rows)
                kept = segment.keep(rows)
                self._places.append(segment.number, np.flatnonzero(kept) + at)
                at += len(rows)
                steps = np.asarray(rows["step"][kept], np.int64)
                for name, values in zip(UPDATES, self._values(segment, rows[kept]), strict=True):
                    self._run.series[name].extend(steps, values)

    def read(self, name: str, start: int, stop: int) -> Iterator[Values]:
        """Yield columns of a series by their index, from disk."""
        for number, first, last in self._places.stretches(start, stop):
            segment = self._segments[number]
            for rows in segment.updates.read(first, last):
                yield self._values(segment, rows)[UPDATES.index(name)]

    def _values(self, segment: Segment, rows: Rows) -> tuple[Values, Values]:
        there = self._watched[segment.number].there(rows)
        ratio, weight = updates_by_layer(rows, segment.layout, there)
        columns = self._columns(segment)
        return columns.spread(ratio), columns.spread(weight)
