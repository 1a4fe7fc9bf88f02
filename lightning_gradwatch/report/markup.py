"""The report as HTML: the words and the table as a fragment, and the whole view as one file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.report.table import make_table
from lightning_gradwatch.report.verdict import one_line, scope, where

if TYPE_CHECKING:
    from lightning_gradwatch.report.report import Report
    from lightning_gradwatch.view.shown import Shown

#: The page that TensorBoard's tab shows; the file shows the same.
SCRIPT = Path(__file__).parents[1] / "tensorboard" / "static" / "index.js"

#: Nothing may be fetched: the file is read offline, and data of a run stays where it is.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)

#: Colours that show on white and on black, since a notebook may be either.
_EDGES = {Severity.ERROR: "#d13438", Severity.WARNING: "#c98a00", Severity.INFO: "#3b82c4"}
_GOOD = "#16a34a"

#: Wide enough that no column is dropped.
_WIDTH = 240


def fragment(report: Report) -> str:
    """Return the diagnosis and the table as HTML without any script, for notebooks.

    Example:
        >>> from lightning_gradwatch.report import Report
        >>> print(fragment(Report(steps=3, parameters=1, layers=1))[:62])
        <div class="gradwatch-report" style="font-family: system-ui, s
    """
    return "\n".join(
        [
            '<div class="gradwatch-report" style="font-family: system-ui, sans-serif">',
            f"<h3>GradWatch: {escape(report.verdict)}</h3>",
            f"<p>{escape(scope(report))}</p>",
            *(_finding(finding) for finding in report.findings),
            *([] if report.findings else [_box(_GOOD, "<p>Nothing was found.</p>")]),
            *_table(report),
            *_list("Actions", map(str, report.interventions)),
            *_list("Problems", report.problems),
            "</div>",
        ]
    )


def _box(colour: str, content: str) -> str:
    style = f"border-left: 4px solid {colour}; padding: 0 0 0 12px; margin: 12px 0"
    return f'<div style="{style}">{content}</div>'


def _finding(finding: Finding) -> str:
    name = f"{finding.severity.name} {finding.code.replace('_', ' ')}"
    parts = [f"<p><strong>{escape(name)}</strong> · {escape(where(finding))}</p>"]
    if finding.summary:
        parts.append(f"<p>{escape(one_line(finding.summary))}</p>")
    if finding.cause:
        parts.append(f"<p><em>Likely cause.</em> {escape(one_line(finding.cause))}</p>")
    if finding.remedies:
        items = "".join(f"<li>{escape(one_line(remedy))}</li>" for remedy in finding.remedies)
        parts.append(f"<p><em>What to try.</em></p><ol>{items}</ol>")
    return _box(_EDGES[finding.severity], "".join(parts))


def _table(report: Report) -> Iterator[str]:
    if not report.blocks:
        return
    table = make_table(report.blocks, width=_WIDTH)
    heads = "".join(f'<th style="text-align: left">{escape(c.heading)}</th>' for c in table.columns)
    yield f"<table><thead><tr>{heads}</tr></thead><tbody>"
    for row in range(len(table.blocks)):
        cells = []
        for column in table.columns:
            side = "right" if column.kind == "number" else "left"
            font = "; font-family: monospace" if column.kind == "trend" else ""
            style = f"text-align: {side}; white-space: nowrap{font}"
            cells.append(f'<td style="{style}">{escape(column.cells[row])}</td>')
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table>"
    if table.left_out:
        yield f"<p>{escape(table.note())}.</p>"


def _list(heading: str, lines: Iterable[str]) -> Iterator[str]:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    if items:
        yield f"<p><strong>{heading}</strong></p><ul>{items}</ul>"


def to_html(reports: Sequence[Report], runs: Mapping[str, Shown]) -> str:
    """Return the whole view as one file that opens offline.

    Args:
        reports: The words, for readers without scripts.
        runs: What to show, by name.
    """
    from lightning_gradwatch.view.embedded import as_script, embed

    words = "\n".join(map(fragment, reports))
    verdicts = ", ".join(report.verdict for report in reports)
    body = words
    if SCRIPT.is_file() and runs:
        body = "\n".join(
            [
                f"<noscript>{words}</noscript>",
                '<div id="gradwatch"></div>',
                '<script type="application/json" id="gradwatch-data">',
                as_script(embed(runs)),
                "</script>",
                f'<script type="module">{SCRIPT.read_text(encoding="utf-8")}</script>',
            ]
        )
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>GradWatch: {escape(verdicts)}</title></head>",
            f"<body>\n{body}\n</body></html>\n",
        ]
    )
