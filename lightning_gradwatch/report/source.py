"""Where the view in the HTML file takes its maps from: the recording, or the history in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.report.series import Series

if TYPE_CHECKING:
    from lightning_gradwatch.report.report import Report
    from lightning_gradwatch.view.shown import Shown


@dataclass(frozen=True)
class Source:
    """The run that a report is on.

    Attributes:
        series: Its arrays; None if there are none.
        actions: What the actions did, in order.
        folder: Where it is recorded; None if it is not.
    """

    series: Series | None = None
    actions: tuple[ActionRecord, ...] = ()
    folder: Path | None = None

    def runs(self, report: Report) -> Mapping[str, Shown]:
        """Return the run as the view shows it, by name; nothing if there is nothing to draw."""
        from lightning_gradwatch.history import History

        run = self._recorded(report)
        if run is None and isinstance(self.series, History):
            run = self._in_memory()
        if run is None:
            return {}
        run.findings = tuple(report.findings)
        run.epochs = report.epochs
        run.config, run.environment = report.config, report.environment
        folder = self.folder
        return {folder.parent.name if folder is not None else "this run": run}

    def _recorded(self, report: Report) -> Shown | None:
        """Return what is on disk, if it is this run: a folder may hold an older one."""
        from lightning_gradwatch.history import History
        from lightning_gradwatch.view.run import RecordedRun

        if self.folder is None or not self.folder.is_dir():
            return None
        run = RecordedRun(self.folder)
        run.refresh(None)
        if "grad_norm" not in run.series or not len(run.series["grad_norm"]):
            return None
        if not isinstance(self.series, History):
            return run  # the report was read from there, however much has been added since
        last = int(run.series["grad_norm"].steps[-1])
        _, row = next(run.rows(len(run.series["grad_norm"]) - 1, len(run.series["grad_norm"])))
        loss = float(row["loss"])
        same = not math.isfinite(loss) or math.isclose(loss, report.last_loss, rel_tol=1e-6)
        return run if last == report.last_step and same else None

    def _in_memory(self) -> Shown:
        from lightning_gradwatch.history import History
        from lightning_gradwatch.view.acted import ActionLog
        from lightning_gradwatch.view.live import from_history

        assert isinstance(self.series, History)  # the caller has looked
        run = from_history(self.series)
        acted: dict[str, ActionLog] = {}
        for record in self.actions:
            acted.setdefault(record.action, ActionLog(record.action)).add(record)
        run.actions = tuple(acted.values())
        return run
