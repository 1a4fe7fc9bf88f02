"""From the arrays of a run to the rows of the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.finding import CODES, Finding, Severity
from lightning_gradwatch.layers import Layout
from lightning_gradwatch.recording.columns import combine_columns
from lightning_gradwatch.report.block import Block
from lightning_gradwatch.report.grouping import group_layers
from lightning_gradwatch.report.series import Series
from lightning_gradwatch.report.sparkline import CELLS, trend
from lightning_gradwatch.sample import Bools, Floats

#: Findings that speak of outliers: their cells are marked only where the norm stands out.
_OUTLIERS = ("exploding", "spike")


@dataclass(frozen=True)
class _Cells:
    """The rows in order of step, cut into the cells of the sparklines."""

    order: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]
    first_step: npt.NDArray[np.int64]
    last_step: npt.NDArray[np.int64]

    @classmethod
    def of(cls, steps: npt.NDArray[np.int64]) -> _Cells:
        order = np.argsort(steps, kind="stable")
        steps = steps[order]
        if not len(steps):
            return cls(order, order, steps, steps)
        wanted = min(CELLS, len(np.unique(steps)))
        # By step, not by row: old rows are thinned, and the x axis should stay straight.
        cell = (steps - steps[0]) * wanted // (steps[-1] - steps[0] + 1)
        starts = np.flatnonzero(np.diff(cell, prepend=-1))
        stops = np.append(starts[1:], len(steps)) - 1
        return cls(order, starts, steps[starts], steps[stops])


def _masked(values: Floats, there: Bools) -> Floats:
    """Return `values`, NaN where nothing is there and Inf for any non-finite value that is."""
    known = np.where(np.isfinite(values), values, np.inf)
    return np.where(there, known, np.nan)


def _middle(values: npt.NDArray[np.floating[Any]]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")


def _worst(findings: Sequence[Finding], layers: frozenset[str]) -> Finding | None:
    """Return the worst finding on these layers; one on the whole model counts from WARNING on."""
    order = list(CODES)
    touching = [
        finding
        for finding in findings
        if not layers.isdisjoint(finding.layers)
        or (not finding.layers and finding.severity >= Severity.WARNING)
    ]
    rank = {code: -i for i, code in enumerate(order)}
    return max(
        touching, key=lambda f: (f.severity, bool(f.layers), rank.get(f.code, -99)), default=None
    )


def _marks(
    values: Sequence[float], cells: _Cells, finding: Finding | None, middle: float
) -> tuple[str, ...]:
    """Say for each cell whether it shows the finding."""
    if finding is None:
        return ("",) * len(values)
    within = (cells.last_step >= finding.first_step) & (cells.first_step <= finding.last_step)
    if finding.code in _OUTLIERS:
        # Half a decade above the block's own middle: elsewhere the finding is not to be seen.
        within &= np.asarray(values) >= middle + 0.5
    elif finding.code == "nonfinite":
        within &= np.isposinf(np.asarray(values))
    return tuple(finding.code if marked else "" for marked in within)


def build_blocks(series: Series, findings: Sequence[Finding]) -> tuple[Block, ...]:
    """Build one `Block` per group of layers, in order of execution.

    Args:
        series: The run.
        findings: What was found in it; they alone decide on a block's state.

    Returns:
        All blocks; tables choose among them.
    """
    layout = series.layout
    grad_norm, has_grad = series.grad_norm, series.has_grad
    ratio = series.update_ratio
    extremes = (series.layer_min, series.layer_max, series.layer_nonfinite)
    cells = _Cells.of(series.steps)
    stops = np.append(layout.layer_starts[1:], len(layout.parameters))
    blocks = []
    for name, members in group_layers(layout.layers).items():
        columns = np.concatenate([np.arange(layout.layer_starts[i], stops[i]) for i in members])
        starts = np.searchsorted(layout.layer_index[columns], members).astype(np.intp)
        there = has_grad[:, columns]
        norms = np.where(there, grad_norm[:, columns], 0.0).astype(np.float64)
        layer_there = np.logical_or.reduceat(there, starts, axis=1)
        layer_norms = _masked(combine_columns(norms, starts, series.norm_type), layer_there)
        whole = combine_columns(norms, np.zeros(1, np.intp), series.norm_type)[:, 0]
        with np.errstate(divide="ignore"):
            log_norm = np.log10(_masked(whole, np.asarray(there.any(axis=1))))[cells.order]
        values = trend(log_norm, cells.starts)
        worst = _worst(findings, frozenset(layout.layers[i] for i in members))
        blocks.append(
            Block(
                name=name,
                layers=tuple(layout.layers[i] for i in members),
                parameters=len(columns),
                elements=sum(layout.numel[i] for i in columns),
                median=_middle(layer_norms),
                minimum=_finite(extremes[0][members].min()),
                maximum=_finite(extremes[1][members].max()),
                update_ratio=_middle(ratio[:, _weights(layout, columns)]),
                nonfinite=int(extremes[2][members].max()),
                trend=values,
                marks=_marks(values, cells, worst, _middle(log_norm)),
                code=worst.code if worst else "",
                severity=worst.severity if worst else None,
                count=worst.count if worst else 0,
            )
        )
    return tuple(blocks)


def _finite(value: float) -> float:
    return float(value) if math.isfinite(value) else float("nan")


def _weights(layout: Layout, columns: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return the matrices among the columns, or all: a bias that began at zero says nothing."""
    matrices = columns[layout.is_matrix[columns]]
    return matrices if len(matrices) else columns
