"""Writing a run to disk while it runs, in a few microseconds a step."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.errors import check_int, check_number
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.layers import Layout
from lightning_gradwatch.recording import schema
from lightning_gradwatch.recording.events import (
    LineWriter,
    action_entry,
    diagnosis_entry,
    finding_entry,
)
from lightning_gradwatch.recording.flow import FlowLines
from lightning_gradwatch.recording.jsonsafe import json_safe
from lightning_gradwatch.recording.tables import ROWS, TableWriter
from lightning_gradwatch.sample import Floats, ModuleFlow, Sample, Update

_LARGEST = float(np.finfo(np.float32).max)


class RecordingWriter:
    """Appends one run to a recording.

    Every fit is a session of its own, and a session has a segment for each layout it meets. A
    segment's number is claimed by creating its event log, so that two processes which write to one
    folder never share a file.

    Args:
        folder: The recording's folder; made if need be.
        config: GradWatch's arguments, kept with each segment.
        environment: Versions and devices, kept with each segment.
        buffer_rows: Steps collected before a block is written.
        flush_seconds: Longest time that a step waits to be written while steps arrive.
        first: Smallest number of a segment, where those before it are elsewhere.
        clock: Seconds since any fixed point; given by tests.

    Raises:
        OSError: The folder cannot be written to.

    Example:
        >>> import tempfile
        >>> from lightning_gradwatch.recording import read_recording
        >>> from lightning_gradwatch.testing import make_sample
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writer = RecordingWriter(folder)
        ...     for step in range(3):
        ...         writer.add(make_sample(step, {"a.weight": 2.0}))
        ...     writer.close()
        ...     read_recording(folder).grad_norm.tolist()
        [[2.0], [2.0], [2.0]]
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        config: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        buffer_rows: int = ROWS,
        flush_seconds: float = 5.0,
        first: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = Path(folder)
        self._rows = check_int("buffer_rows", buffer_rows, at_least=1)
        self._patience = check_number("flush_seconds", flush_seconds, at_least=0.0)
        self._clock = clock
        self._first = first
        self._about = {"config": dict(config or {}), "environment": dict(environment or {})}
        self._session = uuid.uuid4().hex
        self._layout: Layout | None = None
        self._steps: TableWriter | None = None
        self._updates: TableWriter | None = None
        self._profiles: LineWriter | None = None
        self._flow: LineWriter | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._claim()
        self._flushed = clock()
        self._closed = False

    def _claim(self) -> None:
        """Take the next free number by creating its event log."""
        number = max([self._first - 1, *schema.segment_numbers(self.folder)]) + 1
        while True:
            try:
                self._events = LineWriter(self.folder / schema.EVENTS.format(number))
            except FileExistsError:
                number += 1
            else:
                self.number = number
                return

    def _open(self, sample: Sample) -> None:
        """Begin the tables of a segment; a new segment if this one has another layout."""
        if self._layout is not None:
            self._close_segment()
            self._claim()
        layout = sample.layout
        about = {
            "format_version": schema.FORMAT_VERSION,
            "session": self._session,
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "norm_type": sample.norm_type,
            "layout": layout.to_dict(),
            **self._about,
        }
        text = json.dumps(json_safe(about), ensure_ascii=False, allow_nan=False, indent=1)
        path = self.folder / schema.META.format(self.number)
        with path.open("x", encoding="utf-8", errors="replace") as file:
            file.write(text + "\n")
        width = len(layout.parameters)
        self._steps = TableWriter(
            self.folder / schema.STEPS.format(self.number), schema.steps_dtype(width), self._rows
        )
        self._updates = TableWriter(
            self.folder / schema.UPDATES.format(self.number),
            schema.updates_dtype(width),
            max(1, self._rows // 8),
        )
        self._layout = layout

    def add(self, sample: Sample) -> None:
        """Record one optimizer step.

        Raises:
            OSError: The disk is full, or the folder has gone.
            RuntimeError: The recording is closed.
        """
        if self._closed:
            raise RuntimeError("the recording is closed")
        changed = sample.layout is not self._layout and sample.layout != self._layout
        # The update was made by an earlier step, whose layout may have had other columns.
        foreign = changed and self._layout is not None
        if changed:
            self._open(sample)
        if sample.update is not None and not foreign:
            self._add_update(sample.update)
        steps = self._steps
        assert steps is not None  # `_open` has made it
        steps.add(
            step=sample.step,
            optimizer=sample.optimizer,
            epoch=sample.epoch,
            batch_idx=sample.batch_idx,
            loss=sample.loss,
            lr=sample.lr,
            global_norm=sample.global_norm,
            clipped_norm=sample.clipped_norm,
            accumulated=sample.accumulated,
            amp_overflow=sample.amp_overflow,
            grad_norm=_narrow(sample.grad_norm, sample.global_norm),
            has_grad=sample.has_grad,
        )
        if sample.flow is not None:
            for profile in sample.flow.time_profiles:
                self._add_profile(sample, profile.module, profile.grad_norm)
            if sample.flow.modules is not None:
                self._add_flow(sample, sample.flow.modules)
        if steps.full or self._clock() - self._flushed >= self._patience:
            self.flush()

    def _add_update(self, update: Update) -> None:
        updates = self._updates
        if updates is None:
            return
        if updates.full:
            updates.flush()
        updates.add(
            step=update.step,
            optimizer=update.optimizer,
            weight_norm=_narrow(update.weight_norm),
            update_norm=_narrow(update.update_norm),
            descent=_narrow(update.descent),
            agreement=update.agreement,
        )

    def _add_profile(self, sample: Sample, module: str, norms: Floats) -> None:
        if self._profiles is None:
            self._profiles = LineWriter(self.folder / schema.PROFILES.format(self.number))
        self._profiles.add(
            {
                "step": sample.step,
                "optimizer": sample.optimizer,
                "module": module,
                "grad_norm": [float(f"{value:.6g}") for value in norms],
            }
        )

    def _add_flow(self, sample: Sample, flow: ModuleFlow) -> None:
        if self._flow is None:
            self._flow = LineWriter(self.folder / schema.FLOW.format(self.number))
            self._flow_lines = FlowLines()
        self._flow.add(self._flow_lines.entry(sample.step, sample.optimizer, flow))

    def finding(self, finding: Finding) -> None:
        """Record a finding at once, with every step before it.

        Raises:
            OSError: The file cannot be written.
        """
        self._events.add(finding_entry(finding))
        self.flush()

    def action(self, record: ActionRecord) -> None:
        """Record an intervention; written with the next block, since some act at every step."""
        self._events.add(action_entry(record))

    def flush(self) -> None:
        """Write everything that waits.

        Raises:
            OSError: A file cannot be written.
        """
        for part in (self._steps, self._updates, self._profiles, self._flow, self._events):
            if part is not None:
                part.flush()
        self._flushed = self._clock()

    def close(self, findings: Iterable[Finding] | None = None) -> None:
        """Write everything, the merged findings of the run last, and close the files.

        Args:
            findings: As merged over the run; None if they are not known.

        Raises:
            OSError: A file cannot be written. The files are closed all the same.
        """
        if findings is not None:
            self._events.add(diagnosis_entry(findings))
        self._closed = True
        self._close_segment()

    def abandon(self) -> None:
        """Close the files as they are: the disk takes no more."""
        self._closed = True
        for part in (self._events, self._flow, self._profiles, self._updates, self._steps):
            if part is not None:
                part.abandon()

    def _close_segment(self) -> None:
        with ExitStack() as stack:
            for part in (self._events, self._flow, self._profiles, self._updates, self._steps):
                if part is not None:
                    stack.callback(part.close)
        self._steps = self._updates = self._profiles = self._flow = self._layout = None


def _narrow(values: Floats, largest: float = float("inf")) -> npt.NDArray[np.floating[Any]]:
    """Return `values` so that float32 holds them: a finite one must not turn into Inf."""
    if largest < _LARGEST:
        return values
    big = np.isfinite(values) & (np.abs(values) > _LARGEST)
    return np.where(big, np.copysign(_LARGEST, values), values) if big.any() else values
