"""Findings gathered from event logs that are still being written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_gradwatch.finding import Finding
from lightning_gradwatch.recording.events import parse_finding
from lightning_gradwatch.recording.merge import merge_findings
from lightning_gradwatch.view.segment import Segment


class Found:
    """What each segment's event log has said so far."""

    def __init__(self) -> None:
        self._said: dict[int, list[Finding]] = {}
        self._last_word: dict[int, list[Finding]] = {}

    def take(self, segment: Segment, entry: Mapping[str, Any]) -> None:
        """Take in a line.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: It is none that makes sense.
        """
        if entry.get("type") == "finding":
            self._said.setdefault(segment.number, []).append(parse_finding(entry))
        elif entry.get("type") == "diagnosis":
            found = [parse_finding(finding) for finding in entry["findings"]]
            self._last_word[segment.number] = found

    def merged(self, segments: Sequence[Segment]) -> tuple[Finding, ...]:
        """Return the findings of the run, in order of first step."""
        parts = []
        for segment in segments:
            # A diagnosis is the fit's last word: it says again, merged, what was said before it.
            said = self._last_word.get(segment.number, self._said.get(segment.number, []))
            parts.append((segment.session, [f for f in said if f.first_step < segment.until]))
        return merge_findings(parts)
