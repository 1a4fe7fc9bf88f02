"""The table of remedies.py, in the terminal, in markdown and as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.table import Table

from examples.patients import PATIENTS
from examples.treatments import TREATMENTS, Treatment
from examples.verdicts import A_LITTLE, HELPS, Cell, summary

Cells = Mapping[tuple[str, str], Cell]

#: Columns of a terminal that the table needs.
WIDTH = 170

_STYLE = {"helps": "green", "a little": "yellow", "no help": "", "harms": "red"}


def table(cells: Cells, verdicts: bool = True) -> Table:
    """Return the table for a terminal: a row for each remedy, a column for each patient.

    Args:
        cells: By patient and remedy, `""` for none.
        verdicts: Whether to judge; False after a run that was too short.
    """
    out = Table(title="Remedies, measured", show_lines=True)
    for column in ("remedy", "articles say", *PATIENTS, "measured"):
        out.add_column(column)
    bare = [_lines(cells[name, ""], verdict=False) for name in PATIENTS]
    out.add_row("(untreated)", "", *("\n".join(lines) for lines in bare), "")
    for treatment in TREATMENTS:
        row = []
        for name in PATIENTS:
            if (name, treatment.name) not in cells:
                row.append(f"[dim]n/a: {treatment.doses[name]}[/dim]")
                continue
            cell = cells[name, treatment.name]
            style = _STYLE[cell.verdict] if verdicts else ""
            text = "\n".join(_lines(cell, verdicts)).replace("[", "\\[")
            row.append(f"[{style}]{text}[/{style}]" if style else text)
        said = _summary(treatment, cells) if verdicts else ""
        out.add_row(treatment.name, treatment.says, *row, said)
    return out


def markdown(cells: Cells, seeds: int) -> str:
    """Return the page: how it was made, the table, and what did not hold."""
    lines = [
        "# Remedies, measured",
        "",
        f"`python -m examples.remedies --seeds {seeds} --markdown examples/remedies.md "
        "--figure docs/pictures/remedies.svg`",
        "",
        "Each remedy alone, on four networks that do not learn the 1,797 handwritten digits:",
        "",
        *(f"- **{name}**: {p.title}, {p.epochs} epochs" for name, p in PATIENTS.items()),
        "",
        f"A cell gives the mean accuracy over {seeds} seeds on unseen digits (guessing: 10 %); the "
        "error signal at the first layer over that at the last (for the RNN: at the first tenth of "
        "the time steps over the last tenth), at the first step → in the median of the later ones; "
        "and what GradWatch found at WARNING or above, in brackets what was over by the end. A "
        f"remedy **helps** if it gains {HELPS * 100:.0f} points over the untreated patient, "
        f"*a little* if {A_LITTLE * 100:.0f}. What articles say, with references: "
        "[treatments.py](treatments.py); the papers behind a promise often promise less.",
        "",
        "![accuracy and error signal by remedy and patient](../docs/pictures/remedies.svg)",
        "",
        "| remedy | articles say | " + " | ".join(PATIENTS) + " | measured |",
        "| --- | --- | " + "--- | " * len(PATIENTS) + "--- |",
        _row("(untreated)", "", [_lines(cells[n, ""], verdict=False) for n in PATIENTS], ""),
    ]
    for treatment in TREATMENTS:
        row = [
            _lines(cells[name, treatment.name], marks=True)
            if (name, treatment.name) in cells
            else [f"n/a: {treatment.doses[name]}"]
            for name in PATIENTS
        ]
        lines.append(_row(treatment.name, treatment.says, row, _summary(treatment, cells)))
    lines += ["", "## What did not hold", ""]
    for treatment in TREATMENTS:
        said = _summary(treatment, cells)
        if "hold" in said.partition(";")[0] and not said.startswith("holds;") and said != "holds":
            lines.append(f"- **{treatment.name}** ({treatment.says}): {said}.")
    return "\n".join([*lines, ""])


def figure(cells: Cells, path: Path) -> None:
    """Draw accuracy and error signal as two maps side by side.

    Raises:
        SystemExit: matplotlib is not installed; the message says how to install it.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("--figure needs matplotlib: pip install matplotlib") from None
    names = ["", *(t.name for t in TREATMENTS)]
    with mpl.rc_context({"svg.hashsalt": "remedies", "font.size": 9}):
        picture = Figure(figsize=(10, 8), layout="constrained")
        accuracy, signal = picture.subplots(1, 2, sharey=True)
        nothing = Cell(math.nan, 0.0, math.nan, math.nan, (), "")
        grid = [[cells.get((p, name), nothing) for p in PATIENTS] for name in names]
        scores = np.array([[100 * cell.score for cell in row] for row in grid])
        with np.errstate(divide="ignore"):
            ratios = np.log10([[cell.later for cell in row] for row in grid])
        for axes, values, limits, colours, title in (
            (accuracy, scores, (10, 100), "YlGn", "accuracy, %"),
            (signal, ratios, (-8, 2), "PuOr_r",
             "error signal, first over last, log10"),
        ):  # fmt: skip
            axes.imshow(
                np.clip(values, *limits),
                aspect="auto",
                cmap=colours,
                vmin=limits[0],
                vmax=limits[1],
            )
            axes.set_title(title)
            axes.set_xticks(range(len(PATIENTS)), PATIENTS, rotation=20)
            axes.set_yticks(range(len(names)), ["(untreated)", *names[1:]])
            middle, reach = sum(limits) / 2, (limits[1] - limits[0]) / 2
            for (y, x), value in np.ndenumerate(values):
                # White on the dark ends of the colours.
                dark = value > middle + 0.4 * reach or (
                    axes is signal and value < middle - 0.6 * reach
                )
                axes.text(
                    x, y, _whole(value),
                    ha="center", va="center", color="white" if dark else "black",
                )  # fmt: skip
        picture.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _summary(treatment: Treatment, cells: Cells) -> str:
    own = {
        name: cells[name, treatment.name] for name in PATIENTS if (name, treatment.name) in cells
    }
    return summary(treatment, own)


def _lines(cell: Cell, verdict: bool = True, marks: bool = False) -> list[str]:
    """Return verdict and score, error signal, findings."""
    word = cell.verdict if verdict else ""
    if marks:
        word = {"helps": "**helps**", "a little": "*a little*"}.get(word, word)
    return [
        f"{word} {100 * cell.score:.0f} %".strip(),
        f"{_amount(cell.first)} → {_amount(cell.later)}",
        ", ".join(cell.found) or "healthy",
    ]


def _whole(value: float) -> str:
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "−∞"  # a median of exactly 0 has no logarithm
    return str(round(value))


def _row(name: str, says: str, cells: list[list[str]], measured: str) -> str:
    return "| " + " | ".join([name, says, *("<br>".join(c) for c in cells), measured]) + " |"


def _amount(ratio: float) -> str:
    return "–" if math.isnan(ratio) else f"{ratio:.0e}"
