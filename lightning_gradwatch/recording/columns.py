"""Norms of groups of columns, for many steps at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.sample import Floats


def combine_columns(norms: Floats, starts: npt.NDArray[np.intp], norm_type: float) -> Floats:
    """Combine the p-norms of neighbouring columns, without over- or underflow.

    Args:
        norms: Norms of the parts, shape (T, K); NaN and Inf pass through.
        starts: First column of each group, ascending, shape (G,).
        norm_type: p > 0, or `inf`.

    Returns:
        Norms of the groups, shape (T, G).

    Example:
        >>> combine_columns(np.array([[3e200, 4e200, 1.0]]), np.array([0, 2]), 2.0)
        array([[5.e+200, 1.e+000]])
    """
    with np.errstate(invalid="ignore", over="ignore", under="ignore", divide="ignore"):
        top: Floats = np.maximum.reduceat(norms, starts, axis=1)
        if np.isinf(norm_type):
            return top
        widths = np.diff(np.append(starts, norms.shape[1]))
        unit = np.where((top > 0) & np.isfinite(top), top, 1.0)
        powers = np.power(norms / np.repeat(unit, widths, axis=1), norm_type)
        total: Floats = unit * np.power(np.add.reduceat(powers, starts, axis=1), 1.0 / norm_type)
        return total
