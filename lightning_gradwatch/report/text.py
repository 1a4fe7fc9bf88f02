"""The report as plain text: for `print`, for logs, for a file."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_gradwatch.finding import Finding
from lightning_gradwatch.report.grouping import ROWS
from lightning_gradwatch.report.table import GAP, Table, make_table
from lightning_gradwatch.report.verdict import one_line, scope, where
from lightning_gradwatch.report.wording import ascii_only as to_ascii

if TYPE_CHECKING:
    from lightning_gradwatch.report.report import Report


def to_text(report: Report, *, width: int = 100, rows: int = ROWS, ascii_only: bool = False) -> str:
    """Return the report as plain text.

    Args:
        report: The report.
        width: Columns to fill.
        rows: Most blocks to show.
        ascii_only: Draw and write in ASCII only.
    """
    lines = [f"GradWatch: {report.verdict}", scope(report)]
    for finding in report.findings:
        lines += ["", *finding_lines(finding, width)]
    if report.blocks:
        table = make_table(report.blocks, width=width, rows=rows, ascii_only=ascii_only)
        lines += ["", *table_lines(table)]
    if report.interventions:
        lines += ["", "Actions", *(f"  {entry}" for entry in report.interventions)]
    lines += run_lines(report, width)
    if report.problems:
        lines += ["", "Problems", *(f"  {problem}" for problem in report.problems)]
    text = "\n".join(line.rstrip() for line in lines)
    return to_ascii(text) if ascii_only else text


def finding_lines(finding: Finding, width: int = 100) -> Iterator[str]:
    """Yield what, where, cause and what to try."""
    yield f"{finding.severity.name} {finding.code} · {where(finding)}"
    if finding.summary:
        yield from textwrap.wrap(
            one_line(finding.summary), width, initial_indent="  ", subsequent_indent="  "
        )
    if finding.cause:
        yield from _labelled("cause", one_line(finding.cause), width)
    for i, remedy in enumerate(finding.remedies):
        yield from _labelled("" if i else "try", f"{i + 1}. {one_line(remedy)}", width)


def _labelled(label: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=f"  {label:<7}", subsequent_indent=" " * 9
    ) or [f"  {label}"]


def table_lines(table: Table) -> Iterator[str]:
    """Yield the table with a rule under its headings: names left, numbers right."""
    gap = " " * GAP
    columns = [
        [
            text.rjust(column.width) if column.kind == "number" else text.ljust(column.width)
            for text in (column.heading, *column.cells)
        ]
        for column in table.columns
    ]
    heading, *lines = (gap.join(line) for line in zip(*columns, strict=True))
    yield heading
    yield "-" * len(heading)
    yield from lines
    if table.left_out:
        yield table.note()


def run_lines(report: Report, width: int = 100) -> Iterator[str]:
    """Yield versions, device and configuration, if known."""
    facts = (
        ", ".join(f"{key} {value}" for key, value in report.environment.items()),
        ", ".join(f"{key}={value!r}" for key, value in report.config.items()),
    )
    if any(facts):
        yield ""
        yield "Run"
    for line in filter(None, facts):
        yield from textwrap.wrap(line, width, initial_indent="  ", subsequent_indent="    ")
