"""Everyone who is told what happens: the reporters, on rank zero, each behind the guard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.guard import Guard
from lightning_gradwatch.report import Report
from lightning_gradwatch.reporters.protocol import RunInfo
from lightning_gradwatch.sample import Sample


class Audience:
    """Tells every reporter, in order; a method that a reporter lacks is not missed.

    Args:
        reporters: Objects with the `Reporter` methods.
        guard: Switches off a reporter that fails.

    Attributes:
        listening: False on ranks other than zero: then nobody is told anything.
    """

    def __init__(self, reporters: Sequence[Any], guard: Guard) -> None:
        self.reporters = tuple(reporters)
        self.listening = True
        self._guard = guard

    def start(self, run: RunInfo) -> None:
        """A fit begins."""
        self._tell("start", run)

    def sample(self, sample: Sample) -> None:
        """A recorded step is complete."""
        self._tell("sample", sample)

    def log(self, sample: Sample) -> None:
        """A step falls on the logging interval."""
        self._tell("log", sample)

    def findings(self, findings: Iterable[Finding]) -> None:
        """Findings are new, or have become more severe."""
        for finding in findings:
            self._tell("finding", finding)

    def action(self, record: ActionRecord) -> None:
        """An action intervened."""
        self._tell("action", record)

    def finish(self, report: Report) -> None:
        """The fit has ended."""
        self._tell("finish", report)

    def _tell(self, event: str, value: object) -> None:
        if not self.listening:
            return
        for reporter in self.reporters:
            method = getattr(reporter, event, None)
            if method is not None:
                self._guard.call(reporter, method, value, default=None)
