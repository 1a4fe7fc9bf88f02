"""Which layers belong together: blocks by dotted name, few enough to be read at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from lightning_gradwatch.report.block import Block

#: Below this many blocks the layers are cut one number deeper.
FEW = 6

#: Rows that a table for people has at most.
ROWS = 30

_T = TypeVar("_T")


def _cut(name: str, numbers: int) -> str:
    """Return the dotted name up to its `numbers`-th numeric part, or all of it."""
    parts = name.split(".")
    numeric = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numeric[numbers - 1] + 1]) if len(numeric) >= numbers else name


def group_layers(layers: Sequence[str]) -> dict[str, list[int]]:
    """Group layers into blocks.

    A block reaches up to the first number in the dotted name, so that what a model repeats is one
    row (`blocks.0.attn.q` and `blocks.0.mlp.0` are `blocks.0`) and a plain `Sequential` stays by
    layer. A model with few such blocks is cut at the second number, or not at all.

    Args:
        layers: Dotted names, in order of execution.

    Returns:
        Name of each block to the indices of its layers, in order of execution.

    Example:
        >>> group_layers(["stem", "blocks.0.a", "blocks.0.b", *(f"blocks.{i}.a" for i in range(1, 6))])
        {'stem': [0], 'blocks.0': [1, 2], 'blocks.1': [3], 'blocks.2': [4], 'blocks.3': [5], \
'blocks.4': [6], 'blocks.5': [7]}
        >>> group_layers(["net.0", "net.2", "head"])
        {'net.0': [0], 'net.2': [1], 'head': [2]}
    """  # noqa: E501 - the example is one line of code
    groups: dict[str, list[int]] = {}
    for numbers in (1, 2, 3):
        groups = {}
        for index, name in enumerate(layers):
            groups.setdefault(_cut(name, numbers), []).append(index)
        if len(groups) >= min(FEW, len(layers)):
            break
    return groups


def _spread(items: Sequence[_T], wanted: int) -> list[_T]:
    """Pick `wanted` items evenly, first and last among them."""
    if wanted >= len(items):
        return list(items)
    if wanted <= 1:
        return list(items[:wanted])
    return [items[round(i * (len(items) - 1) / (wanted - 1))] for i in range(wanted)]


def choose_rows(blocks: Sequence[Block], rows: int = ROWS) -> list[Block]:
    """Choose the blocks that a table has room for: the sick ones first, then evenly over depth.

    Args:
        blocks: All blocks, in order of execution.
        rows: Room.

    Returns:
        At most `rows` blocks, in the same order.
    """
    if len(blocks) <= rows:
        return list(blocks)
    sick = [i for i, block in enumerate(blocks) if block.sick]
    well = [i for i, block in enumerate(blocks) if not block.sick]
    # A sixth of the room stays with healthy blocks, which show what the sick ones are to be like.
    kept = _spread(sick, max(rows - len(well), rows - rows // 6))
    kept += _spread(well, rows - len(kept))
    return [blocks[i] for i in sorted(kept)]
