"""Writes every step to disk, where the report, the command line and the tab read it."""

from __future__ import annotations

import warnings
from typing import Any

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.errors import GradWatchWarning, check_number
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.recording.write import RecordingWriter
from lightning_gradwatch.report import Report
from lightning_gradwatch.reporters.protocol import RunInfo
from lightning_gradwatch.sample import Sample


class RecordingReporter:
    """Records the run in its recording folder, if it has one.

    When the folder cannot be written to, or the disk fills up, one warning says so and training
    goes on without a recording; what was written stays readable.

    Args:
        flush_seconds: Longest time that a step waits to be written while steps arrive.
    """

    def __init__(self, *, flush_seconds: float = 5.0) -> None:
        self._flush_seconds = check_number("flush_seconds", flush_seconds, at_least=0.0)
        self._writer: RecordingWriter | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files behind: a copy of a running callback does not record."""
        return self.__dict__ | {"_writer": None}

    def start(self, run: RunInfo) -> None:
        """Begin a session."""
        if self._writer is not None:
            self._write("close")
        self._writer = None
        if run.recording_dir is None:
            return
        try:
            self._writer = RecordingWriter(
                run.recording_dir,
                config=run.config,
                environment=run.environment,
                flush_seconds=self._flush_seconds,
            )
        except OSError as error:
            self._give_up(f"cannot record in {str(run.recording_dir)!r}", error)

    def sample(self, sample: Sample) -> None:
        """Record a step."""
        self._write("add", sample)

    def log(self, sample: Sample) -> None:
        """Do nothing: the step has been recorded already."""

    def finding(self, finding: Finding) -> None:
        """Record a finding."""
        self._write("finding", finding)

    def action(self, record: ActionRecord) -> None:
        """Record an intervention."""
        self._write("action", record)

    def finish(self, report: Report) -> None:
        """Record the merged findings and close the files."""
        self._write("close", report.findings)
        self._writer = None

    def _write(self, method: str, *values: Any) -> None:
        if self._writer is None:
            return
        try:
            getattr(self._writer, method)(*values)
        except OSError as error:
            writer, self._writer = self._writer, None
            writer.abandon()
            self._give_up(f"stops recording in {str(writer.folder)!r}", error)

    def _give_up(self, what: str, error: OSError) -> None:
        warnings.warn(
            f"GradWatch {what}: {error.strerror or error}. Training goes on without a recording. "
            "Give a folder that can be written to, GradWatch(record=PATH), or turn recording "
            "off, GradWatch(record=False).",
            GradWatchWarning,
            stacklevel=2,
        )
