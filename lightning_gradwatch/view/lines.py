"""Series made of lines of JSON: time profiles of recurrent modules, the flow through modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from lightning_gradwatch.view.cells import ABSENT, Values
from lightning_gradwatch.view.measured import FLOW, by_name, numbers
from lightning_gradwatch.view.places import Places
from lightning_gradwatch.view.segment import Segment
from lightning_gradwatch.view.series import Row, Series
from lightning_gradwatch.view.shown import Reader, Shown
from lightning_gradwatch.view.tails import LineTail, ReplacedError

#: Memory of the bins of one of these series; past it exact values are read from the file again.
MAX_BYTES = 32 * 2**20

#: Most values read again to answer one question: as text, they take their time.
READ_AT_ONCE = 200_000


class _Feed:
    """Takes in the lines of one kind of file, from all segments.

    Args:
        run: Where the series go.
    """

    kind = ""

    def __init__(self, run: Shown) -> None:
        self._run = run
        self._segments: dict[int, Segment] = {}

    def take(self, segments: Sequence[Segment]) -> int:
        """Take in what is new; return how many lines made no sense."""
        self._segments = {segment.number: segment for segment in segments}
        entries, failed = self._scan(segments)
        if not self._fits(entries):
            # A name or a length that is new: the series need more rows, from their beginning on.
            for segment in segments:
                setattr(segment, self.kind, LineTail(getattr(segment, self.kind).path))
            entries, failed = self._scan(segments)
            self._begin(entries)
        self._extend(entries)
        return failed

    def load(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Take in lines that are in memory, all of them at once."""
        entries = [self._parse(0, line) for line in lines]
        self._begin(entries)
        self._extend(entries)

    def _scan(self, segments: Sequence[Segment]) -> tuple[list[dict[str, Any]], int]:
        entries, failed = [], 0
        for segment in segments:
            for place, line in getattr(segment, self.kind).scan():
                try:
                    # Looked at even where it does not count: it may name the modules of the next.
                    entry = self._parse(segment.number, line)
                    if segment.keeps(line):
                        entries.append(entry | {"segment": segment.number, "place": place})
                except (KeyError, TypeError, ValueError, AttributeError):
                    failed += 1
        return entries, failed

    def _series(self, name: str, title: str, rows: Sequence[Row], read: Reader) -> None:
        """Add an empty series; what is not in a file cannot be read from it again."""
        self._run.add(
            Series(
                name,
                title,
                rows,
                read=read if self._segments else None,
                max_bytes=MAX_BYTES,
                read_at_once=READ_AT_ONCE,
            )
        )

    def _again(
        self, places: Places, start: int, stop: int
    ) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
        """Yield segment, index and line of columns, from disk."""
        for i, (number, place) in enumerate(places[start:stop]):
            tail: LineTail = getattr(self._segments[number], self.kind)
            line = tail.read(place)
            if line is None:
                raise ReplacedError(tail.path.name)
            yield number, start + i, line

    # What each kind of line below has of its own.

    def _parse(self, segment: int, line: Mapping[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def _fits(self, entries: Sequence[Mapping[str, Any]]) -> bool:
        raise NotImplementedError

    def _begin(self, entries: Sequence[Mapping[str, Any]]) -> None:
        raise NotImplementedError

    def _extend(self, entries: Sequence[Mapping[str, Any]]) -> None:
        raise NotImplementedError


class ProfileFeed(_Feed):
    """One series for each recurrent module: its time steps as rows, the last one at the end."""

    kind = "profiles"

    def __init__(self, run: Shown) -> None:
        super().__init__(run)
        self._lengths: dict[str, int] = {}
        self._places: dict[str, Places] = {}

    def _parse(self, segment: int, line: Mapping[str, Any]) -> dict[str, Any]:
        norms = numbers(line["grad_norm"])
        return {"step": int(line["step"]), "module": str(line["module"]), "grad_norm": norms}

    def _fits(self, entries: Sequence[Mapping[str, Any]]) -> bool:
        return all(len(e["grad_norm"]) <= self._lengths.get(e["module"], -1) for e in entries)

    def _begin(self, entries: Sequence[Mapping[str, Any]]) -> None:
        for entry in entries:
            known = self._lengths.get(entry["module"], 0)
            self._lengths[entry["module"]] = max(known, len(entry["grad_norm"]))
        for module, length in self._lengths.items():
            self._places[module] = Places()
            layer = self._run.layer_of(module)
            rows = [Row(f"t={t}", layer=layer) for t in range(length)]
            title = f"error signal over time, {module}"
            self._series(f"time_profile:{module}", title, rows, partial(self._read, module))

    def _extend(self, entries: Sequence[Mapping[str, Any]]) -> None:
        for module, length in self._lengths.items():
            own = [entry for entry in entries if entry["module"] == module]
            for entry in own if self._segments else ():
                self._places[module].append(entry["segment"], [entry["place"]])
            steps = np.array([entry["step"] for entry in own], np.int64)
            values = self._values(own, length)
            self._run.series[f"time_profile:{module}"].extend(steps, values)

    def _read(self, module: str, start: int, stop: int) -> Iterator[Values]:
        for number, _, line in self._again(self._places[module], start, stop):
            yield self._values([self._parse(number, line)], self._lengths[module])

    @staticmethod
    def _values(entries: Sequence[Mapping[str, Any]], length: int) -> Values:
        values = np.full((len(entries), length), ABSENT, np.float32)
        for row, entry in zip(values, entries, strict=True):
            if len(entry["grad_norm"]):
                row[-len(entry["grad_norm"]) :] = entry["grad_norm"]
        return values


class FlowFeed(_Feed):
    """Series over modules: error signal at their outputs, gain, zeros, saturation."""

    kind = "flow"

    def __init__(self, run: Shown) -> None:
        super().__init__(run)
        self._names: dict[str, int] = {}
        self._kinds: dict[str, str] = {}
        self._modules: dict[int, list[str]] = {}  # by segment: a line says only what has changed
        self._places = Places()
        self._named: list[list[str]] = []  # by column

    def _parse(self, segment: int, line: Mapping[str, Any]) -> dict[str, Any]:
        if "modules" in line:
            names = [str(name) for name in line["modules"]]
            self._modules[segment] = names
            self._kinds.update(zip(names, map(str, line["kinds"]), strict=True))
        names = self._modules[segment]
        entry: dict[str, Any] = {"step": int(line["step"]), "modules": names}
        for key in FLOW:
            entry[key] = numbers(line[key])
            if len(entry[key]) != len(names):
                raise ValueError(f"{key} has {len(entry[key])} values for {len(names)} modules")
        return entry

    def _fits(self, entries: Sequence[Mapping[str, Any]]) -> bool:
        return all(name in self._names for entry in entries for name in entry["modules"])

    def _begin(self, entries: Sequence[Mapping[str, Any]]) -> None:
        # The latest order of outputs comes first; what is gone by then follows.
        for entry in reversed(entries):
            for name in entry["modules"]:
                self._names.setdefault(name, len(self._names))
        self._places, self._named = Places(), []
        for key, (name, title, log) in FLOW.items():
            rows = [
                Row(module, self._kinds[module], self._run.layer_of(module), log)
                for module in self._names
            ]
            self._series(name, title, rows, partial(self._read, key))

    def _extend(self, entries: Sequence[Mapping[str, Any]]) -> None:
        if not entries:
            return
        steps = np.array([entry["step"] for entry in entries], np.int64)
        for entry in entries if self._segments else ():
            self._places.append(entry["segment"], [entry["place"]])
            self._named.append(entry["modules"])
        for key, (name, _, _) in FLOW.items():
            self._run.series[name].extend(steps, by_name(entries, key, self._names))

    def _read(self, key: str, start: int, stop: int) -> Iterator[Values]:
        for _, column, line in self._again(self._places, start, stop):
            entry = {key: numbers(line[key]), "modules": self._named[column]}
            yield by_name([entry], key, self._names)
