"""A recording as the view shows it: taken in as it grows, in bounded memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from lightning_gradwatch.layers import Layout
from lightning_gradwatch.recording import schema
from lightning_gradwatch.recording.events import parse_action
from lightning_gradwatch.recording.merge import merge_layouts
from lightning_gradwatch.recording.tables import Rows
from lightning_gradwatch.view.acted import ActionLog
from lightning_gradwatch.view.cells import Values
from lightning_gradwatch.view.files import RECENT, fingerprint, two_writers
from lightning_gradwatch.view.found import Found
from lightning_gradwatch.view.growing import Growing
from lightning_gradwatch.view.lines import FlowFeed, ProfileFeed
from lightning_gradwatch.view.measured import (
    Columns,
    norms_by_layer,
    strips,
)
from lightning_gradwatch.view.segment import Segment
from lightning_gradwatch.view.shown import (
    Shown,
    grad_norm_series,
    strip_series,
    update_series,
)
from lightning_gradwatch.view.tails import ReplacedError
from lightning_gradwatch.view.updates import UpdateFeed

#: Seconds spent on taking in a recording before an answer is given with what there is.
PATIENCE = 0.3


class _RebuildError(Exception):
    """What was taken in does not hold any more: a later segment has made it again."""


class RecordedRun(Shown):
    """A run on disk.

    Args:
        folder: The recording's folder.

    Example:
        >>> import tempfile
        >>> from lightning_gradwatch.recording import RecordingWriter
        >>> from lightning_gradwatch.testing import make_sample
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writer = RecordingWriter(folder)
        ...     for step in range(5):
        ...         writer.add(make_sample(step, {"a.weight": 2.0, "b.weight": 3.0}))
        ...     writer.close()
        ...     run = RecordedRun(folder)
        ...     run.refresh()
        ...     run.series["grad_norm"].bins(None, None, 1).cells.most.tolist()
        [[2.0, 3.0]]
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.lock = threading.RLock()
        self._fingerprint = ""
        self._reset()

    def _reset(self) -> None:
        """Forget everything, to take it in anew."""
        self._segments: list[Segment] = []
        self._begin()

    def _begin(self) -> None:
        """Begin the series anew, with the layout that all segments have together."""
        self._segments = [Segment(self.folder, segment.number) for segment in self._segments]
        self.clear()
        self._places: dict[int, Columns] = {}
        self._found = Found()
        self._acted: dict[str, ActionLog] = {}
        self._records = Growing(np.int64, (3,))  # step, segment, place of its line
        self._updates = UpdateFeed(self, self._columns)
        self._feeds = (ProfileFeed(self), FlowFeed(self))
        self._unread = 0
        opened = [segment for segment in self._segments if segment.open()]
        if not opened:
            return
        self.layout = merge_layouts([segment.layout for segment in opened])
        self.norm_type = opened[-1].norm_type
        self.config = dict(opened[-1].about.get("config", {}))
        self.environment = dict(opened[-1].about.get("environment", {}))
        self._void(opened)
        self.add(grad_norm_series(self.layout, self._read_norms))
        self.add(strip_series(self._read_strips))
        for series in update_series(self.layout, self._updates.read):
            self.add(series)

    def _void(self, opened: list[Segment]) -> None:
        """Note for each segment from which step on later ones have made its steps again."""
        again: dict[int, int] = {}
        resumed: dict[str, int] = {}
        for segment in reversed(opened):
            segment.again = dict(again)
            others = [step for session, step in resumed.items() if session != segment.session]
            segment.until = min(others, default=segment.until)
            segment.steps.scan()
            if segment is not opened[0]:
                for rows in segment.steps.read(0, segment.steps.rows):
                    segment.note_first(rows)
            if segment.first:
                first = min(segment.first.values())
                resumed[segment.session] = min(first, resumed.get(segment.session, first))
            for optimizer, step in segment.first.items():
                again[optimizer] = min(step, again.get(optimizer, step))

    @property
    def version(self) -> str:
        """A string that changes whenever something is written; costs a look at file sizes."""
        return fingerprint(self.folder)[0]

    def refresh(self, patience: float | None = PATIENCE) -> None:
        """Take in what is new.

        Args:
            patience: Seconds after which to stop for now, leaving `complete` False; None: never.
        """
        with self.lock:
            mark, latest = fingerprint(self.folder)
            writing = time.time() - latest < RECENT
            if self.complete and mark == self._fingerprint:
                if writing != self.writing:  # an unfinished end is a problem once nobody goes on
                    self.writing = writing
                    self.problems = tuple(self._problems())
                return
            deadline = None if patience is None else time.monotonic() + patience
            for attempt in range(3):
                try:
                    self.complete = self._advance(deadline)
                except ReplacedError:
                    self._reset()
                except _RebuildError:
                    self._begin()
                else:
                    break
                if attempt == 2:
                    self.problems = ("the recording changes faster than it can be read",)
                    return
            self._fingerprint, self.writing = mark, writing
            self.problems = tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        for segment in self._segments:
            for problem in segment.problems:
                # While a run writes, an unfinished end is how it should be.
                if not (self.writing and "unfinished" in problem):
                    yield problem
        if self._unread:
            yield f"{self._unread:,} lines lack a field or have one that makes no sense"
        yield from two_writers(self._segments)
        if not self._segments:
            yield f"there is no recording in {self.folder.name!r}"
        elif not any(segment.about for segment in self._segments):
            if all(not segment.problem for segment in self._segments):
                yield "no step has been recorded yet"
        elif not len(self.series["grad_norm"]) and self.complete:
            yield "no step has been recorded yet"

    def _advance(self, deadline: float | None) -> bool:
        """Take in new rows and lines; return whether that was all of them."""
        known = {segment.number for segment in self._segments}
        for number in schema.segment_numbers(self.folder):
            if number not in known:
                self._segments.append(Segment(self.folder, number))
        fresh = [s for s in self._segments if not s.about and s.open()]
        if fresh:
            self._begin()
        self._take_events()
        opened = [segment for segment in self._segments if segment.about]
        for i, segment in enumerate(opened):
            segment.steps.scan()
            for rows in segment.steps.read(segment.indexed, segment.steps.rows):
                if segment.note_first(rows) and i:
                    raise _RebuildError
                self._take_steps(segment, rows, opened[i + 1 :])
                if deadline is not None and time.monotonic() > deadline:
                    return False
        self._updates.take(opened)
        for feed in self._feeds:
            self._unread += feed.take(opened)
        return True

    def _take_steps(self, segment: Segment, rows: Rows, later: list[Segment]) -> None:
        kept = segment.take(rows)
        if not len(kept):
            return
        if any(other.indexed for other in later):
            raise _RebuildError  # in order of step, they belong before what has been taken in
        steps = np.asarray(kept["step"], np.int64)
        self.series["grad_norm"].extend(steps, self._norms(segment, kept))
        self.series["strips"].extend(steps, strips(kept))
        self.epochs = max(self.epochs, int(kept["epoch"].max()) + 1)

    def _norms(self, segment: Segment, rows: Rows) -> Values:
        values = norms_by_layer(
            rows["grad_norm"], rows["has_grad"], segment.layout, segment.norm_type
        )
        return self.turns.mark(self._columns(segment).spread(values), rows["optimizer"])

    def _columns(self, segment: Segment) -> Columns:
        if segment.number not in self._places:
            self._places[segment.number] = Columns(segment.layout.layers, self.layout.layers)
        return self._places[segment.number]

    def _take_events(self) -> None:
        for i, segment in enumerate(self._segments):
            for place, entry in segment.events.scan():
                try:
                    if entry.get("type") == "action":
                        self._act(i, place, entry)
                    else:
                        self._found.take(segment, entry)
                except (KeyError, TypeError, ValueError, AttributeError):
                    self._unread += 1
        self.findings = self._found.merged(self._segments)
        self.open = self._found.open(self._segments)
        self.actions = tuple(self._acted.values())

    def _act(self, segment: int, place: int, entry: Mapping[str, Any]) -> None:
        record = parse_action(entry)
        if record.step < self._segments[segment].until:
            self._acted.setdefault(record.action, ActionLog(record.action)).add(record)
            self._records.append(np.array([(record.step, segment, place)]))

    # ------------------------------------------------------------------ exact values, from disk

    def _rows(self, start: int, stop: int) -> Iterator[tuple[Segment, Rows]]:
        """Yield recorded steps by their index among those that count."""
        opened = [segment for segment in self._segments if segment.about]
        ends = list(accumulate(len(segment) for segment in opened))
        for segment, end in zip(opened, ends, strict=True):
            begin = end - len(segment)
            for rows in segment.read(max(0, start - begin), max(0, min(stop, end) - begin)):
                yield segment, rows

    def _read_norms(self, start: int, stop: int) -> Iterator[Values]:
        for segment, rows in self._rows(start, stop):
            yield self._norms(segment, rows)

    def _read_strips(self, start: int, stop: int) -> Iterator[Values]:
        for _, rows in self._rows(start, stop):
            yield strips(rows)

    def rows(self, start: int, stop: int) -> Iterator[tuple[Layout, Any]]:
        """Yield recorded steps by their index, each with the layout of its columns."""
        for segment, rows in self._rows(start, stop):
            for row in rows:
                yield segment.layout, row

    def records(self, step: int) -> list[dict[str, Any]]:
        """Return what actions did at a step, as their lines say."""
        entries = []
        table = self._records.values
        for _, segment, place in table[table[:, 0] == step].tolist():
            entry = self._segments[segment].events.read(place)
            if entry is not None:
                entries.append({key: value for key, value in entry.items() if key != "type"})
        return entries

    def segments(self) -> list[dict[str, Any]]:
        """Return what is known of each segment."""
        return [
            {
                "number": segment.number,
                "session": segment.session,
                "started": segment.about.get("started"),
                "first_step": min(segment.first.values(), default=None),
                "layers": len(segment.layout.layers),
                "steps": len(segment),
                "problem": segment.problem,
            }
            for segment in self._segments
        ]
