"""The report as GitHub-flavoured markdown: for pull requests, notes and TensorBoard's text tab."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_gradwatch.finding import Finding
from lightning_gradwatch.report.table import Table, make_table
from lightning_gradwatch.report.verdict import one_line, scope, where

if TYPE_CHECKING:
    from lightning_gradwatch.report.report import Report

#: Wide enough that no column is dropped.
_WIDTH = 240


def escape(text: str) -> str:
    r"""Return `text` so that markdown shows it as it is.

    Example:
        >>> print(escape("a_b|c <d>"))
        a\_b\|c &lt;d&gt;
    """
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", flat)


def to_markdown(report: Report) -> str:
    """Return headings, findings, the table by block, actions and facts of the run."""
    lines = [f"# GradWatch: {escape(report.verdict)}", "", escape(scope(report)), ""]
    for finding in report.findings:
        lines += finding_markdown(finding)
    if report.blocks:
        lines += ["## Blocks", "", *_table(make_table(report.blocks, width=_WIDTH)), ""]
    if report.interventions:
        lines += ["## Actions", "", *(f"- {escape(str(e))}" for e in report.interventions), ""]
    facts = {**report.environment, **{k: repr(v) for k, v in report.config.items()}}
    if facts:
        lines += ["## Run", "", *(f"- {escape(k)}: {escape(v)}" for k, v in facts.items()), ""]
    if report.problems:
        lines += ["## Problems", "", *(f"- {escape(problem)}" for problem in report.problems), ""]
    return "\n".join(lines)


def finding_markdown(finding: Finding) -> Iterator[str]:
    """Yield one finding: what and where, the cause, and what to try as a numbered list."""
    yield f"## {finding.severity.name}: {escape(finding.code.replace('_', ' '))}"
    yield ""
    yield f"*{escape(where(finding))}*"
    yield ""
    if finding.summary:
        yield escape(one_line(finding.summary))
        yield ""
    if finding.cause:
        yield f"**Likely cause.** {escape(one_line(finding.cause))}"
        yield ""
    if finding.remedies:
        yield "**What to try.**"
        yield ""
        yield from (f"{i}. {escape(one_line(r))}" for i, r in enumerate(finding.remedies, 1))
        yield ""


def _table(table: Table) -> Iterator[str]:
    yield "| " + " | ".join(escape(column.heading) for column in table.columns) + " |"
    rules = ("--:" if column.kind == "number" else "---" for column in table.columns)
    yield "| " + " | ".join(rules) + " |"
    for row, block in enumerate(table.blocks):
        texts = []
        for column in table.columns:
            text = escape(column.cells[row])
            if column.kind == "trend":
                text = f"`{column.cells[row]}`" if column.cells[row].strip() else ""
            elif column.kind == "status" and block.sick:
                text = f"**{text}**"
            texts.append(text)
        yield "| " + " | ".join(texts) + " |"
    if table.left_out:
        yield ""
        yield f"{table.note()}."
