"""One segment of a recording, read as it grows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.layers import Layout
from lightning_gradwatch.recording import schema
from lightning_gradwatch.recording.read import NewerVersionError, read_about
from lightning_gradwatch.recording.tables import Rows
from lightning_gradwatch.view.growing import Growing
from lightning_gradwatch.view.tails import LineTail, TableTail

#: A step that no run reaches.
FOREVER = int(np.iinfo(np.int64).max)


class Segment:
    """A segment's files and how far each has been read.

    Attributes:
        number: Its number.
        about: What its JSON says; empty until that is there.
        layout: Its parameters and layers.
        first: First step of each optimizer in it.
        again: For each optimizer the step from which on a later segment has made the rows again.
        until: First step that a later fit has made again; its own findings and actions from there
            on are void.
        indexed: Rows of the steps that have been taken in or dropped.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number = folder, number
        self.about: Mapping[str, Any] = {}
        self.layout = Layout((), (), (), (), (), ())
        self.first: dict[int, int] = {}
        self.again: dict[int, int] = {}
        self.until = FOREVER
        self.indexed = 0
        self.problem = ""
        self._kept = Growing(np.int64)  # places in the file
        self.events = LineTail(folder / schema.EVENTS.format(number))
        self.profiles = LineTail(folder / schema.PROFILES.format(number))
        self.flow = LineTail(folder / schema.FLOW.format(number))
        self._tables()

    def _tables(self) -> None:
        width = len(self.layout.parameters)
        steps, updates = schema.STEPS.format(self.number), schema.UPDATES.format(self.number)
        self.steps = TableTail(self.folder / steps, schema.steps_dtype(width))
        self.updates = TableTail(self.folder / updates, schema.updates_dtype(width))

    def open(self) -> bool:
        """Read the layout if it has not been read yet; return whether it is known now."""
        if self.about:
            return True
        problems: list[str] = []
        try:
            about = read_about(self.folder / schema.META.format(self.number), problems)
        except NewerVersionError as error:
            about = None
            problems.append(str(error))
        self.problem = problems[0] if problems else ""
        if about is not None:
            self.about, self.layout = about, Layout.from_dict(about["layout"])
            self._tables()
        return bool(self.about)

    @property
    def session(self) -> str:
        """The fit it belongs to."""
        return str(self.about.get("session", f"segment {self.number}"))

    @property
    def norm_type(self) -> float:
        """The p of its norms."""
        return float(self.about.get("norm_type", 2.0))

    @property
    def problems(self) -> Iterator[str]:
        """Sentences on what could not be read."""
        tails = (self.events, self.steps, self.updates, self.profiles, self.flow)
        yield from filter(None, (self.problem, *(tail.problem for tail in tails)))

    def note_first(self, rows: Rows) -> bool:
        """Take note of optimizers; return whether one is new to this segment."""
        new = False
        for optimizer in np.unique(rows["optimizer"]).tolist():
            if optimizer not in self.first:
                self.first[optimizer] = int(rows["step"][rows["optimizer"] == optimizer].min())
                new = True
        return new

    def keep(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Return which rows no later segment has made again."""
        kept = np.ones(len(rows), np.bool_)
        for optimizer, step in self.again.items():
            kept &= (rows["optimizer"] != optimizer) | (rows["step"] < step)
        return kept

    def keeps(self, entry: Mapping[str, Any]) -> bool:
        """Return whether no later segment has made the step of a line again."""
        step = self.again.get(int(entry["optimizer"]))
        return step is None or int(entry["step"]) < step

    def take(self, rows: Rows) -> Rows:
        """Take in the next rows of the steps; return those that count."""
        kept = np.flatnonzero(self.keep(rows))
        self._kept.append(kept + self.indexed)
        self.indexed += len(rows)
        return rows if len(kept) == len(rows) else rows[kept]

    def read(self, start: int, stop: int) -> Iterator[Rows]:
        """Yield rows that count, by their index among them, from disk."""
        places = self._kept.values[start:stop]
        if not len(places):
            return
        at = int(places[0])
        for rows in self.steps.read(at, int(places[-1]) + 1):
            here = places[(places >= at) & (places < at + len(rows))] - at
            yield rows if len(here) == len(rows) else rows[here]
            at += len(rows)

    def __len__(self) -> int:
        """Rows that count."""
        return len(self._kept)
