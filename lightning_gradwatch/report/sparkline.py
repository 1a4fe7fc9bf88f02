"""A run in one line of text: the gradient norm of a block over its steps, in decades."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.sample import Floats

#: Cells a trend has at most.
CELLS = 28

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.:-=+*#"


def trend(log_norm: Floats, starts: npt.NDArray[np.intp]) -> tuple[float, ...]:
    """Condense log10 norms to one value per cell: the one that lies farthest from the median.

    A mean would hide a one-step spike. Taking the farthest value shows it in exactly one cell,
    however wide the cells are.

    Args:
        log_norm: log10 of the norm at each row, shape (T,): NaN without a gradient, `inf` for a
            non-finite one, `-inf` for a gradient of zero.
        starts: First row of each cell, ascending, shape (C,).

    Returns:
        C values with the same meaning.

    Example:
        >>> trend(np.array([0.0, 0.1, 3.0, 0.0, -0.1, 0.0]), np.array([0, 3]))
        (3.0, -0.1)
    """
    if not len(starts):
        return ()
    finite = log_norm[np.isfinite(log_norm)]
    middle = float(np.median(finite)) if len(finite) else 0.0
    high = np.fmax.reduceat(log_norm, starts)
    low = np.fmin.reduceat(log_norm, starts)
    with np.errstate(invalid="ignore"):
        return tuple(np.where(high - middle >= middle - low, high, low).tolist())


def scale(trends: Iterable[Sequence[float]]) -> tuple[float, float]:
    """Return the decades from which to which the sparklines of one table reach.

    All rows share it, so that depth can be seen. It spans two decades at least, so that noise
    stays flat, and no more than six either way of the median, so that one outlier does not
    flatten all others.

    Example:
        >>> scale([(0.0, 0.5), (0.5, 30.0)])
        (0.0, 6.5)
        >>> scale([])
        (-1.0, 1.0)
    """
    values = np.array([v for row in trends for v in row if math.isfinite(v)])
    if not len(values):
        return -1.0, 1.0
    middle = float(np.median(values))
    low = max(float(values.min()), middle - 6.0)
    high = min(float(values.max()), middle + 6.0)
    if high - low < 2.0:
        centre = 0.5 * (low + high)
        return centre - 1.0, centre + 1.0
    return low, high


def cells(values: Sequence[float], low: float, high: float, ascii_only: bool = False) -> str:
    """Draw one character per value: its height between `low` and `high`.

    Without a gradient the cell is blank; a non-finite gradient is a cross.

    Example:
        >>> cells([-2.0, -1.0, 0.0, float("nan"), float("inf"), float("-inf")], -2.0, 0.0)
        '▁▅█ ×▁'
        >>> cells([-2.0, 0.0, float("inf")], -2.0, 0.0, ascii_only=True)
        '_#!'
    """
    levels = _ASCII if ascii_only else _BLOCKS
    drawn = []
    for value in values:
        if math.isnan(value):
            drawn.append(" ")
        elif value == math.inf:
            drawn.append("!" if ascii_only else "×")
        else:
            height = (max(value, low) - low) / (high - low) * len(levels)
            drawn.append(levels[min(int(height), len(levels) - 1)])
    return "".join(drawn)
