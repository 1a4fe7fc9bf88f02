"""Series made of lines of JSON: time profiles of recurrent modules, the flow through modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lightning_gradwatch.view.cells import ABSENT
from lightning_gradwatch.view.measured import FLOW, by_name, numbers
from lightning_gradwatch.view.segment import Segment
from lightning_gradwatch.view.series import Row, Series
from lightning_gradwatch.view.shown import Shown
from lightning_gradwatch.view.tails import LineTail

#: Memory of the bins of one of these series; all of its values are kept below it.
MAX_BYTES = 32 * 2**20


class _Feed:
    """Takes in the lines of one kind of file, from all segments.

    Args:
        run: Where the series go.
    """

    kind = ""

    def __init__(self, run: Shown) -> None:
        self._run = run

    def take(self, segments: Sequence[Segment]) -> int:
        """Take in what is new; return how many lines made no sense."""
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
            for _, line in getattr(segment, self.kind).scan():
                try:
                    if segment.keeps(line):
                        entries.append(self._parse(segment.number, line))
                except (KeyError, TypeError, ValueError, AttributeError):
                    failed += 1
        return entries, failed

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
            layer = self._run.layer_of(module)
            rows = [Row(f"t={t}", layer=layer) for t in range(length)]
            title = f"error signal over time, {module}"
            name = f"time_profile:{module}"
            self._run.add(Series(name, title, rows, max_bytes=MAX_BYTES))

    def _extend(self, entries: Sequence[Mapping[str, Any]]) -> None:
        for module, length in self._lengths.items():
            own = [entry for entry in entries if entry["module"] == module]
            values = np.full((len(own), length), ABSENT, np.float32)
            for row, entry in zip(values, own, strict=True):
                if len(entry["grad_norm"]):
                    row[-len(entry["grad_norm"]) :] = entry["grad_norm"]
            steps = np.array([entry["step"] for entry in own], np.int64)
            self._run.series[f"time_profile:{module}"].extend(steps, values)


class FlowFeed(_Feed):
    """Series over modules: error signal at their outputs, gain, zeros, saturation."""

    kind = "flow"

    def __init__(self, run: Shown) -> None:
        super().__init__(run)
        self._names: dict[str, int] = {}
        self._kinds: dict[str, str] = {}
        self._modules: dict[int, list[str]] = {}  # by segment: a line says only what has changed

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
        for name, title, log in FLOW.values():
            rows = [
                Row(module, self._kinds[module], self._run.layer_of(module), log)
                for module in self._names
            ]
            self._run.add(Series(name, title, rows, max_bytes=MAX_BYTES))

    def _extend(self, entries: Sequence[Mapping[str, Any]]) -> None:
        if not entries:
            return
        steps = np.array([entry["step"] for entry in entries], np.int64)
        for key, (name, _, _) in FLOW.items():
            self._run.series[name].extend(steps, by_name(entries, key, self._names))
