"""Writes to the Trainer's loggers: a few scalars everywhere, charts and text in TensorBoard."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.errors import GradWatchWarning
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.report import Report
from lightning_gradwatch.report.markdown import finding_markdown
from lightning_gradwatch.reporters.artifacts import keep_report
from lightning_gradwatch.reporters.metrics import PREFIX, MetricsWindow
from lightning_gradwatch.reporters.protocol import RunInfo
from lightning_gradwatch.sample import Sample

#: Tag of the diagnosis in TensorBoard's text tab.
DIAGNOSIS = f"{PREFIX}diagnosis"


class LoggersReporter:
    """Gives the Trainer's loggers about ten scalars under `gradwatch/`, whatever loggers they are.

    On each logging step: norms of that step and the highest since the last one, so that a spike
    between two of them is not lost. Loggers whose experiment knows how, such as TensorBoard's, get
    a layout of charts as well, and the diagnosis as text; W&B and MLflow keep the final report as
    one HTML file. A logger that raises is left alone from
    then on, with one warning; the others go on.

    Args:
        charts: Whether to lay out charts in TensorBoard's custom scalars tab.
        text: Whether to write the diagnosis as text.
    """

    def __init__(self, *, charts: bool = True, text: bool = True) -> None:
        for name, value in (("charts", charts), ("text", text)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, got {value!r}")
        self._charts, self._text = charts, text
        self._forget()

    def _forget(self) -> None:
        self._loggers: list[Any] = []
        self._windows: dict[int, MetricsWindow] = {}
        self._charted: set[int] = set()
        self._findings: dict[tuple[str, int], Finding] = {}
        self._step = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave the loggers behind: a copy of a running callback does not write."""
        return self.__dict__ | {"_loggers": []}

    def start(self, run: RunInfo) -> None:
        """Remember the loggers."""
        self._forget()
        self._loggers = list(run.loggers)

    def sample(self, sample: Sample) -> None:
        """Take in a step, for the extremes between two logging steps."""
        if not self._loggers:
            return
        self._step = max(self._step, sample.step)
        self._window(sample.optimizer).add(sample)

    def log(self, sample: Sample) -> None:
        """Write the scalars of a step."""
        if not self._loggers:
            return
        window = self._window(sample.optimizer)
        problems = sum(f.severity >= Severity.WARNING for f in self._findings.values())
        metrics = window.take(sample, problems)
        self._each(lambda logger: logger.log_metrics(metrics=dict(metrics), step=sample.step))
        if self._charts and sample.optimizer not in self._charted:
            self._charted.add(sample.optimizer)
            self._each(self._lay_out)

    def finding(self, finding: Finding) -> None:
        """Write what was found, at the moment it was."""
        self._findings[finding.code, finding.first_step] = finding
        if self._text:
            lines = "\n".join(finding_markdown(finding))
            self._write_text(lines, finding.last_step)

    def action(self, record: ActionRecord) -> None:
        """Count an intervention."""
        if self._loggers:
            for window in self._windows.values() or (self._window(0),):
                window.act()

    def finish(self, report: Report) -> None:
        """Write the diagnosis of the run."""
        if self._text:
            self._write_text(report.to_markdown(), max(self._step, report.last_step, 0))
            self._each(lambda logger: keep_report(logger, report))
        # A reporter outlives the fit: it should not keep the loggers, which may not be pickled.
        self._forget()

    def _window(self, optimizer: int) -> MetricsWindow:
        if optimizer not in self._windows:
            self._windows[optimizer] = MetricsWindow(optimizer)
        return self._windows[optimizer]

    def _each(self, write: Callable[[Any], None]) -> None:
        """Let each logger write; leave out one that fails."""
        for logger in tuple(self._loggers):
            try:
                write(logger)
            except Exception as error:
                self._loggers.remove(logger)
                warnings.warn(
                    f"GradWatch writes no more to {type(logger).__name__}, which raised "
                    f"{type(error).__name__}: {error}. Training and its other loggers go on.",
                    GradWatchWarning,
                    stacklevel=2,
                )

    def _write_text(self, text: str, step: int) -> None:
        def write(logger: Any) -> None:
            add_text = _method(logger, "add_text")
            if add_text is not None:
                add_text(DIAGNOSIS, text, step)

        self._each(write)

    def _lay_out(self, logger: Any) -> None:
        add_custom_scalars = _method(logger, "add_custom_scalars")
        if add_custom_scalars is not None:
            add_custom_scalars(layout(sorted(self._charted)))


def _method(logger: Any, name: str) -> Callable[..., Any] | None:
    """Return a method of the logger's experiment, if it has a TensorBoard-like one."""
    experiment = getattr(logger, "experiment", None)
    # Any attribute "exists" on the stand-ins of other loggers; TensorBoard's writers have both.
    if not all(callable(getattr(experiment, m, None)) for m in ("add_custom_scalars", "add_text")):
        return None
    method: Callable[..., Any] = getattr(experiment, name)
    return method


def layout(optimizers: list[int]) -> dict[str, dict[str, list[Any]]]:
    """Return TensorBoard's custom-scalars layout: four charts for each optimizer.

    Example:
        >>> [chart for charts in layout([0]).values() for chart in charts]
        ['gradient norm, log10', 'over the layers, log10', 'depth and pace, log10', 'trouble']
    """
    charts: dict[str, list[Any]] = {}
    for optimizer in optimizers:
        name = MetricsWindow(optimizer).names()
        after = f" (optimizer {optimizer})" if len(optimizers) > 1 else ""
        margin = ["log10_layer_norm_median", "log10_layer_norm_low", "log10_layer_norm_high"]
        lines = {
            "gradient norm, log10": ["log10_norm", "log10_norm_highest", "log10_norm_used"],
            "depth and pace, log10": ["log10_first_to_last", "log10_update_ratio"],
            "trouble": ["findings", "nonfinite_steps", "clipped_fraction"],
        }
        for title, tags in lines.items():
            charts[title + after] = ["Multiline", [f"^{name[tag]}$" for tag in tags]]
            if title.startswith("gradient"):
                charts[f"over the layers, log10{after}"] = ["Margin", [name[t] for t in margin]]
    return {"GradWatch": charts}
