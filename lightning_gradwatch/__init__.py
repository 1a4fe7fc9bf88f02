"""The flight recorder and the physician for backward passes.

`GradWatch` is the Lightning callback, `GradientWatcher` the same engine for a loop of your own.
Names are imported on first use, so that the command line and the TensorBoard plugin, which live in
this package too, start without torch and Lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lightning_gradwatch.version import __version__

if TYPE_CHECKING:
    from lightning_gradwatch.action_record import ActionRecord
    from lightning_gradwatch.before_start.check import preflight
    from lightning_gradwatch.callback import GradWatch
    from lightning_gradwatch.errors import GradWatchWarning
    from lightning_gradwatch.finding import Finding, Severity
    from lightning_gradwatch.history import History
    from lightning_gradwatch.report import Report
    from lightning_gradwatch.sample import Sample
    from lightning_gradwatch.watcher import GradientWatcher

_HOME = {
    "ActionRecord": "action_record",
    "Finding": "finding",
    "GradWatch": "callback",
    "GradWatchWarning": "errors",
    "GradientWatcher": "watcher",
    "History": "history",
    "Report": "report",
    "Sample": "sample",
    "Severity": "finding",
    "preflight": "before_start.check",
}

__all__ = [
    "ActionRecord",
    "Finding",
    "GradWatch",
    "GradWatchWarning",
    "GradientWatcher",
    "History",
    "Report",
    "Sample",
    "Severity",
    "__version__",
    "preflight",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
