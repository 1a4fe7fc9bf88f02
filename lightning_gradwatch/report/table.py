"""The table by block as strings, shared by plain text and colour: what to show in which width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_gradwatch.report.block import Block
from lightning_gradwatch.report.grouping import ROWS, choose_rows
from lightning_gradwatch.report.sparkline import CELLS, cells, scale
from lightning_gradwatch.report.wording import number, shorten, size

#: Widest name shown in full, and the narrowest trend worth drawing.
NAME_WIDTH = 32
LEAST_TREND = 8


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        block: What it shows.
        name: Its name, shortened if need be.
        numbers: Params, median, minimum, maximum, update ratio.
        trend: The sparkline; empty when there is no room.
        marks: The finding behind each of its cells.
    """

    block: Block
    name: str
    numbers: tuple[str, str, str, str, str]
    trend: str
    marks: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows, headings, and how many blocks did not find room.

    Attributes:
        headings: Of the seven columns.
        rows: Chosen blocks, in order of execution.
        left_out: Blocks without a row.
        left_out_sick: Those of them that are not healthy.
    """

    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    left_out: int
    left_out_sick: int

    def widths(self) -> list[int]:
        """Return the width of each column, status included."""
        lines = [self.headings, *(cells_of(row) for row in self.rows)]
        return [max(len(line[i]) for line in lines) for i in range(len(self.headings))]

    def note(self) -> str:
        """Say what was left out; empty if nothing was."""
        if not self.left_out:
            return ""
        sick = (
            f"{self.left_out_sick:,} of them with a finding"
            if self.left_out_sick
            else "none of them with a finding"
        )
        return f"{self.left_out:,} of {self.left_out + len(self.rows):,} blocks left out, {sick}"


def cells_of(row: Row) -> tuple[str, ...]:
    """Return the seven cells of a row."""
    return (row.name, *row.numbers, row.trend, row.block.status)


def _value(value: float, block: Block) -> str:
    if math.isnan(value):
        return "nan" if block.nonfinite else "-"
    return number(value)


def make_table(
    blocks: Sequence[Block], *, width: int = 100, rows: int = ROWS, ascii_only: bool = False
) -> Table:
    """Choose rows and columns that fit.

    Args:
        blocks: All blocks of a report.
        width: Columns of the terminal.
        rows: Most blocks to show.
        ascii_only: Draw the trend in ASCII.
    """
    chosen = choose_rows(blocks, rows)
    low, high = scale(block.trend for block in chosen)
    norm = "|g|" if ascii_only else "‖g‖"
    # Name, status and five columns of numbers come first; the trend gets the room they leave.
    names = min(NAME_WIDTH, max((len(b.name) for b in chosen), default=5), max(8, width - 70))
    status = max((len(b.status) for b in chosen), default=6)
    room = width - names - status - 60
    drawn = min(CELLS, room) if room >= LEAST_TREND else 0
    lines = []
    for block in chosen:
        picked = _squeeze(block, drawn)
        values = (block.median, block.minimum, block.maximum, block.update_ratio)
        median, least, most, ratio = (_value(v, block) for v in values)
        lines.append(
            Row(
                block=block,
                name=shorten(block.name, names),
                numbers=(size(block.elements), median, least, most, ratio),
                trend=cells([block.trend[i] for i in picked], low, high, ascii_only),
                marks=tuple(block.marks[i] for i in picked),
            )
        )
    trend = f"trend (log10 {norm})"[: max(drawn, 5)] if drawn < 17 else f"trend (log10 {norm})"
    shown = {id(block) for block in chosen}
    return Table(
        headings=(
            "block",
            "params",
            f"median {norm}",
            "min",
            "max",
            "update ratio",
            trend if drawn else "",
            "status",
        ),
        rows=tuple(lines),
        left_out=len(blocks) - len(chosen),
        left_out_sick=sum(b.sick and id(b) not in shown for b in blocks),
    )


def _squeeze(block: Block, wanted: int) -> list[int]:
    """Pick at most `wanted` cells of the trend, in each stretch the one that stands out."""
    length = len(block.trend)
    if length <= wanted:
        return list(range(length))
    if not wanted:
        return []
    finite = sorted(v for v in block.trend if math.isfinite(v))
    middle = finite[len(finite) // 2] if finite else 0.0
    picked = []
    for cell in range(wanted):
        stretch = range(cell * length // wanted, (cell + 1) * length // wanted)
        picked.append(max(stretch, key=lambda i: _distance(block.trend[i], middle)))
    return picked


def _distance(value: float, middle: float) -> float:
    return -1.0 if math.isnan(value) else abs(value - middle)
