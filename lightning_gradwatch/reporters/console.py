"""Speaks in the terminal: a line when something is found, a summary at the end."""

from __future__ import annotations

import builtins
import logging
import os
import shlex
import shutil
import sys
from typing import Any, Literal, TextIO, get_args

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.errors import check_int
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.report import Report
from lightning_gradwatch.report.grouping import ROWS
from lightning_gradwatch.report.verdict import one_line, title
from lightning_gradwatch.report.wording import ascii_only, number, places
from lightning_gradwatch.reporters.protocol import RunInfo
from lightning_gradwatch.sample import Sample

_log = logging.getLogger("lightning_gradwatch")

Summary = Literal["auto", "full", "line", "off"]


class ConsoleReporter:
    """Warns at the moment of a finding and sums the run up at its end.

    Findings and actions go through `logging.getLogger("lightning_gradwatch")`: WARNING and ERROR as
    warnings, everything else as INFO. The summary goes to the standard output: a panel and a table
    by block, in colour where rich is installed; one line where the output is not a terminal, or
    where the trainer shows no progress.

    Args:
        summary: `"full"` and `"line"` fix the choice, `"off"` prints none.
        max_rows: Most blocks the table shows; sick ones come first.
    """

    def __init__(self, *, summary: Summary = "auto", max_rows: int = ROWS) -> None:
        if summary not in get_args(Summary):
            raise ValueError(
                f"summary must be one of {', '.join(get_args(Summary))}, got {summary!r}"
            )
        self._summary = summary
        self._max_rows = check_int("max_rows", max_rows, at_least=1)
        self._quiet = False
        self._footer = ""

    def start(self, run: RunInfo) -> None:
        """Note how much to show, and where the run is to be seen."""
        self._quiet = not run.show_progress
        self._footer = footer(run)

    def sample(self, sample: Sample) -> None:
        """Do nothing: the terminal belongs to the progress bar."""

    def log(self, sample: Sample) -> None:
        """Do nothing."""

    def finding(self, finding: Finding) -> None:
        """Say what was found, in one line."""
        level = logging.WARNING if finding.severity >= Severity.WARNING else logging.INFO
        where = f"step {finding.last_step:,}, {places(finding.layers, 2)}"
        text = f"GradWatch {finding.severity.name}: {title(finding)} at {where}."
        if finding.summary:
            text += f" {one_line(finding.summary)}"
        if finding.remedies and level == logging.WARNING:
            # What comes after the colon is the code to write: it stands in the summary.
            text += f" Try: {one_line(finding.remedies[0].partition(':')[0])}"
        _log.log(level, "%s", _fit(text, sys.stderr))

    def action(self, record: ActionRecord) -> None:
        """Say what an action did, in one line."""
        change = ""
        if record.before == record.before:
            change = f": {number(record.before)} → {number(record.after)}"
        reason = f" ({one_line(record.reason)[:-1]})" if record.reason else ""
        text = f"GradWatch step {record.step:,}: {record.action}{change}{reason}"
        _log.info("%s", _fit(text, sys.stderr))

    def finish(self, report: Report) -> None:
        """Print the summary."""
        out: TextIO | None = sys.stdout  # None where there is no console at all
        if self._summary == "off" or out is None:
            return
        full = self._summary == "full" or (
            self._summary == "auto" and not self._quiet and _shows_tables(out)
        )
        if not full or not report.steps:
            print(_fit(report.headline, out), file=out)
        elif not _print_rich(report, self._max_rows, self._footer, out):
            text = report.to_text(
                width=min(shutil.get_terminal_size().columns, 120),
                rows=self._max_rows,
                ascii_only=not _speaks_unicode(out),
            )
            print("\n" + "\n".join(filter(None, (text, _fit(self._footer, out)))), file=out)
        out.flush()


def footer(run: RunInfo) -> str:
    """Return the command that opens TensorBoard; empty unless a logger of its kind is there."""
    for logger in run.loggers:
        if any(kind.__name__ == "TensorBoardLogger" for kind in type(logger).__mro__):
            # The folder above the versions, so that earlier runs stand beside this one.
            root = getattr(logger, "root_dir", None) or getattr(logger, "save_dir", None)
            if root:
                return f"Curves: tensorboard --logdir {shlex.quote(_short_path(str(root)))}"
    return ""


def _short_path(path: str) -> str:
    """Return the path from here if it lies below, else as it is."""
    if "://" in path:
        return path
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        return path
    return path if relative.startswith(os.pardir) else relative


def _shows_tables(out: TextIO) -> bool:
    """Whether the output is a terminal or a notebook."""
    if hasattr(builtins, "__IPYTHON__"):
        return True
    try:
        return out.isatty()
    except ValueError:  # closed
        return False


def _speaks_unicode(out: TextIO) -> bool:
    return (getattr(out, "encoding", None) or "ascii").lower().replace("-", "") in (
        "utf8", "utf16", "utf32", "utf8sig",
    )  # fmt: skip


def _fit(text: str, out: Any) -> str:
    """Return the text in ASCII if the stream would fail on more."""
    return text if _speaks_unicode(out) else ascii_only(text)


def _print_rich(report: Report, rows: int, footer: str, out: TextIO) -> bool:
    """Print in colour; False where rich is not installed."""
    try:
        from rich.console import Console

        from lightning_gradwatch.report.rich_view import RichReport
    except ImportError:
        return False
    console = Console(highlight=False)
    view = RichReport(report, rows=rows, footer=footer)
    if console.is_jupyter:
        console.print(view)
        return True
    # rich would print past a live progress bar, which keeps its place if we write to stdout.
    with console.capture() as captured:
        console.print()
        console.print(view)
    out.write(captured.get())
    return True
