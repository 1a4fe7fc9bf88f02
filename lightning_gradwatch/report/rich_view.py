"""The report in colour, for terminals: a panel with the diagnosis and a table by block.

The only module that imports rich, which is optional.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType
from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.report.grouping import ROWS
from lightning_gradwatch.report.table import GAP, Column, Table, make_table
from lightning_gradwatch.report.verdict import one_line, scope, title, where
from lightning_gradwatch.report.wording import ascii_only

if TYPE_CHECKING:
    from lightning_gradwatch.report.report import Report

GOOD, BAD, WEAK, ODD, NOTE, FAINT = "green", "red", "blue", "yellow", "cyan", "bright_black"

#: What a finding looks like: blue for a signal that fades, red for one that bursts.
_STYLES = {"vanishing": WEAK, "stalled": WEAK, "exploding": BAD, "nonfinite": BAD}

#: Wider lines than this are tiring to read.
WIDEST = 110

#: Remedies shown of a finding; the report as text has them all.
REMEDIES = 3


def style_of(code: str, severity: Severity | None) -> str:
    """Return the colour of a finding of this code and severity; green without one."""
    if severity is None:
        return GOOD
    return _STYLES.get(code, ODD) if severity >= Severity.WARNING else NOTE


class RichReport:
    """A report that lays itself out for the width and the encoding of the console it goes to.

    Args:
        report: The report.
        rows: Most blocks to show.
        footer: A line below everything, such as the command that opens TensorBoard.
    """

    def __init__(self, report: Report, *, rows: int = ROWS, footer: str = "") -> None:
        self._report, self._rows, self._footer = report, rows, footer

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Yield the panel, the table, what the actions did, and the footer."""
        report = self._report
        plain = options.ascii_only
        width = min(options.max_width, WIDEST)
        faint = [f"{entry}" for entry in report.interventions]
        yield _panel(report, width, plain)
        if report.blocks:
            table = make_table(report.blocks, width=width - 2, rows=self._rows, ascii_only=plain)
            faint = [table.note()] * bool(table.left_out) + faint
            yield Text()
            yield _table(table, plain)
        if any((*faint, *report.problems, self._footer)):
            yield Text()
        faint += [*report.problems, self._footer]
        for line in filter(None, faint):
            yield _text(line, plain, FAINT)


def _text(content: str, plain: bool, style: str = "") -> Text:
    return Text(ascii_only(content) if plain else content, style=style)


def _panel(report: Report, width: int, plain: bool) -> Panel:
    worst = next((f for f in report.findings if f.severity >= Severity.WARNING), None)
    watched = bool(report.steps and report.parameters and not report.idle)
    # Nothing recorded, or nothing learnt, is no proof of health.
    colour = style_of(worst.code, worst.severity) if worst else GOOD if watched else ODD
    lines = Grid.grid(padding=(0, 1))
    lines.add_column(width=1)
    lines.add_column(overflow="fold")
    if worst is None:
        mark = "✓" if watched else "–"
        lines.add_row(_text(mark, plain, colour), _text(report.verdict, plain, "bold"))
    for finding in report.findings:
        lines.add_row()
        for row in _finding(finding, plain):
            lines.add_row(*row)
    body = Grid.grid()
    body.add_row(Text.assemble(("GradWatch", "bold"), _text(f" · {scope(report)}", plain)))
    body.add_row(lines)
    return Panel(
        body,
        title=Text("diagnosis", style=colour),
        border_style=colour,
        box=box.ASCII if plain else box.ROUNDED,
        expand=False,
        width=None if width >= WIDEST else width,
    )


def _finding(finding: Finding, plain: bool) -> Iterator[tuple[Text, RenderableType]]:
    """Yield the lines of a finding, each with the mark at its left."""
    colour = style_of(finding.code, finding.severity)
    head = Text.assemble(
        _text(title(finding), plain, "bold"),
        _text(f" · {finding.severity.name} · {where(finding)}", plain, FAINT),
    )
    yield _text("●", plain, colour), head
    if finding.summary:
        yield Text(), _text(one_line(finding.summary), plain)
    if finding.severity < Severity.WARNING:
        return
    if finding.cause:
        yield Text(), _text(one_line(finding.cause), plain, FAINT)
    for remedy in finding.remedies[:REMEDIES]:
        line = Grid.grid(padding=(0, 1))
        line.add_column()
        line.add_column(overflow="fold")
        line.add_row(_text(">" if plain else "→", plain, GOOD), _text(one_line(remedy), plain))
        yield Text(), line


def _table(table: Table, plain: bool) -> Grid:
    grid = Grid(
        box=box.ASCII2 if plain else box.SIMPLE_HEAD,
        padding=(0, GAP - 1, 0, 0),
        border_style=FAINT,
        header_style="bold",
        pad_edge=False,
        show_edge=False,
    )
    for column in table.columns:
        justify: JustifyMethod = "right" if column.kind == "number" else "left"
        grid.add_column(Text(column.heading), justify=justify, no_wrap=True)
    for row in range(len(table.blocks)):
        grid.add_row(*(_cell(table, column, row) for column in table.columns))
    return grid


def _cell(table: Table, column: Column, row: int) -> Text:
    text, block = Text(column.cells[row]), table.blocks[row]
    colour = style_of(block.code, block.severity)
    if column.kind == "number":
        text.stylize({"-": FAINT, "nan": BAD, "inf": BAD}.get(text.plain, ""))
    elif column.kind == "status":
        text.stylize(colour if block.code or block.trend_seen else FAINT)
    elif column.kind == "trend":
        # Cells that show the finding have its colour; everything else was in order.
        for i, (cell, mark) in enumerate(zip(text.plain, table.marks[row], strict=True)):
            text.stylize(BAD if cell in "×!" else colour if mark else GOOD, i, i + 1)
    return text
