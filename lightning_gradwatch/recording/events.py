"""The event log: one JSON object a line, for findings, actions and the final diagnosis."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.recording.jsonsafe import json_safe
from lightning_gradwatch.recording.tables import write_all


class LineWriter:
    """Appends JSON objects to a file, one a line.

    Args:
        path: The file. Created at once: two processes can never hold the same one.

    Raises:
        FileExistsError: Another process has it.
        OSError: It cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self._file = io.FileIO(path, "x")
        self._lines: list[str] = []

    @property
    def waiting(self) -> int:
        """Lines not written yet."""
        return len(self._lines)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add a line; it is written by the next `flush`."""
        self._lines.append(json.dumps(json_safe(entry), ensure_ascii=False, allow_nan=False))

    def flush(self) -> None:
        """Write the waiting lines.

        Raises:
            OSError: The file cannot be written; the lines are given up.
        """
        if self._lines:
            data = "".join(f"{line}\n" for line in self._lines).encode("utf-8", "replace")
            self._lines.clear()
            write_all(self._file, data)

    def close(self) -> None:
        """Write what is waiting and close the file."""
        try:
            self.flush()
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Close the file and give up what is waiting."""
        self._lines.clear()
        self._file.close()


def read_lines(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Read every whole line that holds a JSON object.

    Returns:
        The objects, and a sentence on lines that could not be read; empty if all could.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], ""
    except OSError as error:
        return [], f"{path.name}: {error.strerror or error}"
    entries: list[dict[str, Any]] = []
    broken = 0
    *lines, tail = data.split(b"\n")
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if isinstance(entry, dict):
            entries.append(entry)
        else:
            broken += 1
    if tail:
        return entries, (
            f"{path.name}: the last {len(tail):,} bytes are an unfinished line; the run was "
            "stopped while writing, or is writing now"
        )
    return entries, f"{path.name}: {broken:,} of its lines cannot be read" if broken else ""


def finding_entry(finding: Finding) -> dict[str, Any]:
    """Return the line of a finding that is new or has become more severe."""
    return {"type": "finding", **finding.to_dict()}


def action_entry(record: ActionRecord) -> dict[str, Any]:
    """Return the line of one intervention."""
    return {"type": "action", **record.to_dict()}


def diagnosis_entry(findings: Iterable[Finding]) -> dict[str, Any]:
    """Return the line that ends a fit: its findings as merged over the whole run."""
    return {"type": "diagnosis", "findings": [finding.to_dict() for finding in findings]}


def parse_finding(entry: Mapping[str, Any]) -> Finding:
    """Rebuild a finding from its line.

    Raises:
        KeyError, TypeError, ValueError: The line is not one.
    """
    data = {key: value for key, value in entry.items() if key != "type"}
    data["evidence"] = {key: float(value) for key, value in data["evidence"].items()}
    return Finding.from_dict(data)


def parse_action(entry: Mapping[str, Any]) -> ActionRecord:
    """Rebuild an action's record from its line.

    Raises:
        KeyError, TypeError, ValueError: The line is not one.
    """
    data = {key: value for key, value in entry.items() if key != "type"}
    data |= {key: float(data[key]) for key in ("before", "after")}
    return ActionRecord.from_dict(data)
