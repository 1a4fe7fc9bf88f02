"""The table by block as strings, shared by plain text and colour: what to show in which width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_gradwatch.report.block import Block
from lightning_gradwatch.report.grouping import ROWS, choose_rows
from lightning_gradwatch.report.sparkline import CELLS, cells, scale
from lightning_gradwatch.report.wording import aligned, shorten, size
from lightning_gradwatch.report.wording import ascii_only as to_ascii

#: Widest name shown in full, narrowest one, and the narrowest trend worth drawing.
NAME_WIDTH = 32
LEAST_NAME = 10
LEAST_TREND = 10

#: Below this width the number of weights gives way to the trend.
ROOMY = 100

#: Spaces between columns.
GAP = 2


@dataclass(frozen=True)
class Column:
    """One column: names and words stand left, numbers right."""

    heading: str
    kind: Literal["name", "number", "trend", "status"]
    cells: tuple[str, ...]

    @property
    def width(self) -> int:
        """Widest cell, heading included."""
        return max(map(len, (self.heading, *self.cells)))


@dataclass(frozen=True)
class Table:
    """Columns over the chosen blocks.

    Attributes:
        columns: Name, numbers, trend where there is room, status.
        blocks: One for each row, in order of execution.
        marks: For each row the finding behind each cell of its trend.
        left_out: Blocks without a row.
        left_out_sick: Those of them that are not healthy.
    """

    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    marks: tuple[tuple[str, ...], ...]
    left_out: int
    left_out_sick: int

    def note(self) -> str:
        """Say what was left out; empty if nothing was."""
        if not self.left_out:
            return ""
        sick = f"{self.left_out_sick:,}" if self.left_out_sick else "none"
        every = self.left_out + len(self.blocks)
        return f"{self.left_out:,} of {every:,} blocks left out, {sick} of them with a finding"


def make_table(
    blocks: Sequence[Block], *, width: int = 100, rows: int = ROWS, ascii_only: bool = False
) -> Table:
    """Choose rows and columns that fit.

    Args:
        blocks: All blocks of a report.
        width: Columns of the terminal.
        rows: Most blocks to show.
        ascii_only: Draw in ASCII.
    """
    chosen = choose_rows(blocks, rows)
    norm = "|g|" if ascii_only else "‖g‖"
    numbers = [
        Column("params", "number", tuple(size(b.elements) for b in chosen)),
        Column(f"median {norm}", "number", tuple(_value(b.median, b) for b in chosen)),
        Column("min", "number", tuple(_value(b.minimum, b) for b in chosen)),
        Column("max", "number", tuple(_value(b.maximum, b) for b in chosen)),
        Column(
            "update ratio" if width >= ROOMY else "update",
            "number",
            tuple(_value(b.update_ratio, b) for b in chosen),
        ),
    ][0 if width >= ROOMY else 1 :]
    words = [to_ascii(b.status) if ascii_only else b.status for b in chosen]
    status = Column("status", "status", tuple(words))
    room = width - status.width - sum(c.width + GAP for c in numbers) - GAP
    longest = min(NAME_WIDTH, max((len(b.name) for b in chosen), default=0))
    # Names give way until the trend can be drawn; then the trend takes what they leave.
    names = max(LEAST_NAME, min(longest, room - GAP - LEAST_TREND))
    cut = [shorten(b.name, names) for b in chosen]
    name = Column("block", "name", tuple(map(to_ascii, cut) if ascii_only else cut))
    room -= name.width + GAP
    drawn = min(CELLS, room) if room >= LEAST_TREND else 0
    picked = [_squeeze(block.trend, drawn) for block in chosen]
    trends = [[b.trend[i] for i in kept] for b, kept in zip(chosen, picked, strict=True)]
    low, high = scale(block.trend for block in chosen)
    heading = f"trend (log10 {norm})"
    trend = Column(
        heading if drawn >= len(heading) else "trend",
        "trend",
        tuple(cells(values, low, high, ascii_only) for values in trends),
    )
    shown = {id(block) for block in chosen}
    return Table(
        columns=(name, *numbers, *([trend] if drawn else []), status),
        blocks=tuple(chosen),
        marks=tuple(
            tuple(b.marks[i] for i in kept) for b, kept in zip(chosen, picked, strict=True)
        ),
        left_out=len(blocks) - len(chosen),
        left_out_sick=sum(b.sick and id(b) not in shown for b in blocks),
    )


def _value(value: float, block: Block) -> str:
    if math.isnan(value):
        return "nan" if block.nonfinite else "-"
    return aligned(value)


def _squeeze(trend: Sequence[float], wanted: int) -> list[int]:
    """Pick at most `wanted` cells of a trend, in each stretch the one that stands out."""
    length = len(trend)
    if length <= wanted or not wanted:
        return list(range(length if wanted else 0))
    finite = sorted(v for v in trend if math.isfinite(v))
    middle = finite[len(finite) // 2] if finite else 0.0

    def distance(index: int) -> float:
        return -1.0 if math.isnan(trend[index]) else abs(trend[index] - middle)

    stretches = (
        range(cell * length // wanted, (cell + 1) * length // wanted) for cell in range(wanted)
    )
    return [max(stretch, key=distance) for stretch in stretches]
