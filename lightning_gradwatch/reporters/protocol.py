"""What a reporter is: it is told everything and can change nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.sample import Sample

if TYPE_CHECKING:
    from lightning_gradwatch.report import Report


@dataclass(frozen=True)
class RunInfo:
    """The run a reporter reports on.

    Attributes:
        log_dir: Directory that a logger gives the run; None without one.
        recording_dir: Where the recording goes; None for nowhere.
        recording_address: The same if that is remote, like `s3://bucket/run/gradwatch`.
        loggers: Lightning's logger objects, used by their `log_metrics(metrics=, step=)`.
        log_every_n_steps: How often `log` is called.
        config: GradWatch's own arguments, as plain values.
        environment: Versions, device, strategy, precision, as strings.
        show_progress: Whether the trainer shows progress bars and summaries at all.
    """

    log_dir: Path | None = None
    recording_dir: Path | None = None
    loggers: Sequence[Any] = ()
    log_every_n_steps: int = 50
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    show_progress: bool = True
    recording_address: str | None = None


class Reporter(Protocol):
    """Anything with these methods; called on rank zero only, an error in one disables it alone."""

    def start(self, run: RunInfo) -> None:
        """A fit begins."""

    def sample(self, sample: Sample) -> None:
        """A recorded step is complete, `clipped_norm` included. Called for every one, in order."""

    def log(self, sample: Sample) -> None:
        """A step falls on the logging interval; the same sample was just given to `sample`."""

    def finding(self, finding: Finding) -> None:
        """A finding is new, or has become more severe."""

    def action(self, record: ActionRecord) -> None:
        """An action intervened."""

    def finish(self, report: Report) -> None:
        """The fit has ended, whatever ended it. Called once for each `start`."""
