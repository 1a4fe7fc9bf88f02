"""Figures as tables: titles, heads and rows of text, for the terminal and for the document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.cost.figures import Row, Sheet
from benchmarks.cost.models import MODELS
from benchmarks.cost.variants import (
    AGAIN,
    BOUND,
    NORMS,
    NORMS_INSIDE,
    PLAIN,
    VARIANTS,
    WARM_UP,
    WHOLE_INSIDE,
)


@dataclass(frozen=True)
class Table:
    """A table to be shown.

    Attributes:
        title: What it is of.
        heads: Its columns.
        rows: Cells.
        note: What has to be known to read it.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def tables(sheets: Mapping[str, Sheet]) -> list[Table]:
    """Return every table of time.

    Args:
        sheets: By key of `MODELS`.
    """
    heads = ["", *(_head(name, sheet) for name, sheet in sheets.items())]
    found = [
        Table(
            "Whole steps: CPU time, ratio to plain training",
            heads,
            _ratios(sheets, lambda row: row.whole_ratio, lambda sheet: sheet.spread),
            "All steps: those that look closer, log and write are in it. ± is what two equal "
            "things differ by here, two standard errors of the ratio of `plain (again)`. `*`: "
            "written anew from its documentation.",
        ),
        Table(
            "The usual step: CPU time, ratio to plain training",
            heads,
            _ratios(sheets, lambda row: row.usual_ratio, lambda sheet: sheet.usual_spread),
            "The median step, which neither looks closer nor logs.",
        ),
        Table(
            "The usual step: time on the clock, ratio to plain training",
            heads,
            _ratios(sheets, lambda row: row.wall_ratio, lambda sheet: sheet.wall_spread),
            "What writer threads and W&B's own process do after the step is not in it.",
        ),
    ]
    if all({BOUND, NORMS_INSIDE, WHOLE_INSIDE} <= set(sheet.rows) for sheet in sheets.values()):
        found.append(_inside(sheets))
    if all({NORMS, "norms + flow"} <= set(sheet.rows) for sheet in sheets.values()):
        found.append(_closer(sheets))
    return found


def _head(name: str, sheet: Sheet) -> str:
    return f"{MODELS[name].title} ({1e3 * sheet.rows[PLAIN].usual:.1f} ms)"


def _ratios(
    sheets: Mapping[str, Sheet], of: Callable[[Row], float], spread: Callable[[Sheet], float]
) -> list[list[str]]:
    names = [
        name
        for name, variant in VARIANTS.items()
        if name != PLAIN and variant.group != "inside"
        if all(name in sheet.rows for sheet in sheets.values())
    ]
    return [
        [name, *(f"{of(s.rows[name]):.3f} ±{spread(s):.3f}" for s in sheets.values())]
        for name in sorted(names, key=lambda name: name != AGAIN)
    ]


def _inside(sheets: Mapping[str, Sheet]) -> Table:
    """From inside: what our hooks take, and how often the bound that is."""
    rows = []
    for name, whole in ((NORMS_INSIDE, False), (WHOLE_INSIDE, False), (WHOLE_INSIDE, True)):
        cells = [name + (", all steps" if whole else "")]
        for sheet in sheets.values():
            took = sheet.rows[name].inside if whole else sheet.rows[name].inside_usual
            bound = sheet.rows[BOUND].inside_usual
            cells.append(f"{1e6 * took:,.0f} µs ({took / bound:.1f}x)")
        rows.append(cells)
    bounds = [f"{1e6 * sheet.rows[BOUND].inside_usual:,.0f} µs" for sheet in sheets.values()]
    return Table(
        "From inside: CPU time of our hooks in a step, and how many times the bound",
        ["", *(MODELS[name].title for name in sheets)],
        [[BOUND, *bounds], *rows],
        "The bound, measured in place on each step of a training of its own: from every parameter "
        "to its gradient, and one read of as many bytes from one buffer. Hooks on modules are not "
        "in it; they are in the whole steps.",
    )


def _closer(sheets: Mapping[str, Sheet]) -> Table:
    """What the steps that look closer cost above a usual one."""
    rows = []
    # Positions in an interval of 50 steps, and what happens there and nowhere else.
    for title, name, base, place in (
        ("weight change, 2 steps in 50", NORMS, "", 1),
        ("flow through modules, 1 step in 50", "norms + flow", NORMS, 0),
        ("TensorBoard, 1 step in 50", "norms + TensorBoard", NORMS, 49),
    ):
        cells = [title]
        for sheet in sheets.values():
            more = _above(sheet, name, place) - (_above(sheet, base, place) if base else 0.0)
            share = more / sheet.rows[PLAIN].usual
            cells.append(f"{1e3 * more:.2f} ms ({100 * share:.0f} %)" if more == more else "-")
        rows.append(cells)
    return Table(
        "Steps that look closer: CPU time above a usual step, and as a share of a plain one",
        ["", *(MODELS[name].title for name in sheets)],
        rows,
        "Medians over the rounds of one or two steps each: good to the spread of single steps.",
    )


def _above(sheet: Sheet, name: str, place: int) -> float:
    row = sheet.rows.get(name)
    if row is None:
        return float("nan")
    there = [t for i, t in enumerate(row.steps) if (WARM_UP + i) % 50 == place]
    return float(np.mean(there)) - row.usual if there else float("nan")
