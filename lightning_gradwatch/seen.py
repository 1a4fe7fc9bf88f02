"""What was seen of a run: the same properties on the callback and on the watcher."""

from __future__ import annotations

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.engine import Engine
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.history import History
from lightning_gradwatch.report import Report


class Seen:
    """Results of an engine, during the run and after it."""

    _engine: Engine

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Findings merged over the run, in order of first step."""
        return self._engine.diagnosis.findings

    @property
    def healthy(self) -> bool:
        """True if there is no finding of severity WARNING or higher."""
        return self._engine.diagnosis.healthy

    @property
    def history(self) -> History:
        """The recorded steps, bounded in memory."""
        return self._engine.history

    @property
    def actions_taken(self) -> tuple[ActionRecord, ...]:
        """What the actions did, oldest first; the latest 10,000."""
        return tuple(self._engine.records)

    def report(self) -> Report:
        """Return the diagnosis of the run so far: `str()`, `.to_markdown()`, `.to_dict()`."""
        return self._engine.report()
