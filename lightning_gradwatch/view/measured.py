"""From rows on disk to values by layer: what each series of a run is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.layers import Layout
from lightning_gradwatch.recording.columns import combine_columns
from lightning_gradwatch.recording.tables import Rows
from lightning_gradwatch.sample import Bools
from lightning_gradwatch.view.cells import ABSENT, NO_GRADIENT, Values

#: The strips under the map, and whether they span decades.
STRIPS = {"global_norm": True, "clipped_norm": True, "loss": False, "lr": True}

#: What a line of the flow holds, with the name and title of the series made of it.
FLOW = {
    "out_grad_norm": ("flow", "error signal at outputs", True),
    "gain": ("gain", "gain from output to input", True),
    "zero_fraction": ("zeros", "share of zero outputs", False),
    "saturated_fraction": ("saturated", "share of saturated outputs", False),
}

_LARGEST = np.float32(np.finfo(np.float32).max)
_LOWEST = np.nextafter(NO_GRADIENT, np.float32(0))


def norms_by_layer(
    norms: npt.NDArray[np.float32], there: Bools, layout: Layout, norm_type: float
) -> Values:
    """Combine norms of parameters into those of layers, many steps at once.

    Args:
        norms: Shape (T, P).
        there: Whether the parameter has one, shape (T, P).
        layout: Which parameters are in which layer.
        norm_type: p > 0, or `inf`.

    Returns:
        Shape (T, L); `NO_GRADIENT` where no parameter of a layer has one. A finite norm stays
        finite.

    Example:
        >>> layout = Layout.of({"a.weight": 1, "a.bias": 1, "b.weight": 1})
        >>> norms = np.array([[3, 4, np.nan]], np.float32)
        >>> values = norms_by_layer(norms, np.isfinite(norms), layout, 2.0)
        >>> values[0, 0].item(), values[0, 1] == NO_GRADIENT
        (5.0, np.True_)
    """
    starts = layout.layer_starts
    if not len(starts):
        return np.zeros((len(norms), 0), np.float32)
    gone = None
    if not np.isfinite(norms).all():
        gone = ~np.logical_or.reduceat(there, starts, axis=1)
        norms = np.where(there, norms, np.float32(0))
    if len(starts) == norms.shape[1]:
        values: npt.NDArray[np.floating[Any]] = norms
    elif norm_type == 2.0:
        # Squares of float32 neither over- nor underflow in float64, so no scaling is needed.
        squares = np.square(norms, dtype=np.float64)
        values = np.sqrt(np.add.reduceat(squares, starts, axis=1))
    else:
        values = combine_columns(norms.astype(np.float64), starts, norm_type)
    if values.dtype != np.float32:
        values = np.where(np.isfinite(values), np.minimum(values, _LARGEST), values)
    values = np.asarray(values, np.float32)
    return values if gone is None else np.where(gone, NO_GRADIENT, values)


class Columns:
    """Brings the layers of a segment under those of the whole recording, by name.

    Args:
        layers: Layers of the segment.
        merged: Layers of the recording.
    """

    def __init__(self, layers: Sequence[str], merged: Sequence[str]) -> None:
        place = {name: i for i, name in enumerate(merged)}
        own = [(i, place[name]) for i, name in enumerate(layers) if name in place]
        self._same = tuple(layers) == tuple(merged)
        self._from = np.array([i for i, _ in own], np.intp)
        self._to = np.array([j for _, j in own], np.intp)
        self._width = len(merged)

    def spread(self, values: Values) -> Values:
        """Return (T, L) values under the recording's layers; `ABSENT` for those not there."""
        if self._same:
            return values
        spread = np.full((len(values), self._width), ABSENT, np.float32)
        spread[:, self._to] = values[:, self._from]
        return spread


def strips(rows: Rows) -> Values:
    """Return norms, loss and learning rate of steps, shape (T, 4)."""
    columns = []
    for name in STRIPS:
        values = np.asarray(rows[name], np.float64)
        with np.errstate(over="ignore"):
            narrow = values.astype(np.float32)
        # Beyond float32 is not infinite yet; the lowest number has a meaning of its own.
        narrow = np.where(np.isfinite(values), np.clip(narrow, _LOWEST, _LARGEST), narrow)
        columns.append(np.where(narrow == -np.inf, np.float32(np.nan), narrow))
    found = np.stack(columns, axis=1)
    untold = np.isnan(found)
    there = rows["has_grad"].any(axis=1)
    untold[:, 0] &= ~there
    # A NaN among finite gradients was never told; one that training produced spoils them all.
    untold[:, 1:3] &= (np.isfinite(found[:, 0]) | ~there)[:, np.newaxis]
    return np.where(untold, ABSENT, found)


def updates_by_layer(rows: Rows, layout: Layout, there: Bools) -> tuple[Values, Values]:
    """Return update ratio and weight norm by layer, each of shape (U, L).

    Args:
        rows: U of them.
        layout: Which parameters are in which layer.
        there: Which parameters were measured, shape (U, P).
    """
    weight, moved = rows["weight_norm"], rows["update_norm"]
    weights = norms_by_layer(weight, there, layout, 2.0)
    steps = norms_by_layer(moved, there, layout, 2.0)
    weights = np.where(weights == NO_GRADIENT, ABSENT, weights)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = steps / weights
    # Weights that were all zero have no size to compare with.
    ratio = np.where((weights == ABSENT) | (weights == 0), ABSENT, ratio)
    return np.asarray(ratio, np.float32), weights


def numbers(values: Iterable[Any]) -> Values:
    """Return numbers of a line of JSON; `ABSENT` for null.

    Raises:
        TypeError, ValueError: One is no number.

    Example:
        >>> numbers([1.5, "NaN", None]).tolist()
        [1.5, nan, -inf]
    """
    found = [-math.inf if value is None else float(value) for value in values]
    with np.errstate(over="ignore"):
        return np.asarray(found, np.float32)


def by_name(entries: Sequence[Mapping[str, Any]], key: str, names: Mapping[str, int]) -> Values:
    """Return one quantity of lines of the flow, shape (len(entries), len(names))."""
    values = np.full((len(entries), len(names)), ABSENT, np.float32)
    for row, entry in zip(values, entries, strict=True):
        row[[names[name] for name in entry["modules"]]] = entry[key]
    return values
