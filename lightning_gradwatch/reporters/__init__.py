"""Who is told: the Trainer's loggers, the console, the recording on disk."""

from __future__ import annotations

from lightning_gradwatch.reporters.console import ConsoleReporter
from lightning_gradwatch.reporters.loggers import LoggersReporter
from lightning_gradwatch.reporters.protocol import Reporter, RunInfo
from lightning_gradwatch.reporters.recording import RecordingReporter


def default_reporters() -> list[Reporter]:
    """Return new reporters as `GradWatch` uses them when none are given.

    Example:
        >>> [type(reporter).__name__ for reporter in default_reporters()]
        ['LoggersReporter', 'ConsoleReporter', 'RecordingReporter']
    """
    return [LoggersReporter(), ConsoleReporter(), RecordingReporter()]


__all__ = [
    "ConsoleReporter",
    "LoggersReporter",
    "RecordingReporter",
    "Reporter",
    "RunInfo",
    "default_reporters",
]
