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

    def open(self, segments: Sequence[Segment]) -> frozenset[tuple[str, int]]:
        """Return code and first step of what a fit has found that has not had its last word.

        While a fit goes on, a finding is told again only when it has become worse: where its line
        ends, the trouble need not. The same goes for a fit that was killed.
        """
        last = segments[-1].number if segments else -1
        said = [] if last in self._last_word else self._said.get(last, [])
        return frozenset((finding.code, finding.first_step) for finding in said)

    def merged(self, segments: Sequence[Segment]) -> tuple[Finding, ...]:
        """Return the findings of the run, in order of first step."""
        parts = []
        for segment in segments:
            # A diagnosis is the fit's last word: it says again, merged, what was said before it.
            said = self._last_word.get(segment.number, self._said.get(segment.number, []))
            parts.append((segment.session, [f for f in said if f.first_step < segment.until]))
        return merge_findings(parts)
