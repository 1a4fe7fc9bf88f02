"""Writes every step to disk, where the report, the command line and the tab read it."""

from __future__ import annotations

import warnings
from typing import Any

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.errors import GradWatchWarning, check_number
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.recording.remote import Upload
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
        self._upload: Upload | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files behind: a copy of a running callback does not record."""
        return self.__dict__ | {"_writer": None, "_upload": None}

    def start(self, run: RunInfo) -> None:
        """Begin a session."""
        if self._writer is not None:
            self._write("close")
        self._arrive()
        self._writer = None
        place = run.recording_address or run.recording_dir
        if place is None:
            return
        try:
            if run.recording_address is not None:
                self._upload = Upload(run.recording_address)
            upload = self._upload
            self._writer = RecordingWriter(
                place if upload is None else upload.folder,
                first=0 if upload is None else upload.number,
                config=run.config,
                environment=run.environment,
                flush_seconds=self._flush_seconds,
            )
        except OSError as error:
            self._give_up(f"cannot record in {str(place)!r}", error.strerror or error)
        except Exception as error:
            if run.recording_address is None:
                raise
            self._give_up(f"cannot record in {str(place)!r}", error)  # stores have their own errors

    def sample(self, sample: Sample) -> None:
        """Record a step."""
        self._write("add", sample)
        if self._upload is not None:
            self._upload.poll()
            self._check(self._upload)

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
        self._arrive()

    def _write(self, method: str, *values: Any) -> None:
        if self._writer is None:
            return
        try:
            getattr(self._writer, method)(*values)
        except OSError as error:
            writer, self._writer = self._writer, None
            writer.abandon()
            self._give_up(f"stops recording in {str(writer.folder)!r}", error.strerror or error)

    def _arrive(self) -> None:
        """Copy what is left."""
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.finish()
            self._check(upload)

    def _check(self, upload: Upload) -> None:
        """Say once if copies do not arrive; the recording goes on where it is."""
        if upload.problem:
            self._upload = None
            warnings.warn(
                f"GradWatch cannot copy the recording to the remote log directory: "
                f"{upload.problem}. It stays in {str(upload.folder)!r}.",
                GradWatchWarning,
                stacklevel=2,
            )

    def _give_up(self, what: str, why: object) -> None:
        warnings.warn(
            f"GradWatch {what}: {why}. Training goes on without a recording. "
            "Give a folder that can be written to, GradWatch(record=PATH), or turn recording "
            "off, GradWatch(record=False).",
            GradWatchWarning,
            stacklevel=2,
        )
