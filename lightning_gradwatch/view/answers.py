"""The answers of the view, for the plugin and for the HTML report alike: `frontend/API.md`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_gradwatch.recording.jsonsafe import json_safe
from lightning_gradwatch.view.cells import ABSENT, NO_GRADIENT, STATS, Values, plane
from lightning_gradwatch.view.describe import FORMAT, describe
from lightning_gradwatch.view.message import encode
from lightning_gradwatch.view.series import Series
from lightning_gradwatch.view.shown import Shown, nearest

__all__ = ["FORMAT", "QuestionError", "UnknownError", "at_step", "bins", "describe"]

#: Most bins that may be asked for.
MAX_BINS = 8192

#: Columns looked back through for layers whose optimizer is not the one that made the step.
LOOK_BACK = 64

#: What stands in JSON for a layer that has no gradient, where None is nothing measured.
NOTHING = "none"


class QuestionError(ValueError):
    """A question makes no sense; the message says what would."""


class UnknownError(LookupError):
    """There is no such run or series; the message says what there is."""


def _choose(run: Shown, name: str) -> Series:
    series = run.series.get(name)
    if series is None:
        choices = ", ".join(run.series) or "none: nothing has been recorded"
        raise UnknownError(f"no series {name!r} in this run; there are {choices}")
    return series


def bins(
    run: Shown,
    name: str,
    series: str = "grad_norm",
    *,
    start: int | None = None,
    stop: int | None = None,
    most: int = 1000,
    stats: Sequence[str] = ("extreme",),
    rows: Sequence[int] | None = None,
    bits: int = 24,
) -> bytes:
    """Return a series in bins: the answer of `map`.

    Args:
        run: The run.
        name: What it is called.
        series: Name of the series.
        start: First step; None for the first there is.
        stop: Last step, included; None for the last there is.
        most: Most bins wanted, 1 to `MAX_BINS`.
        stats: What to show of each bin, of `STATS`.
        rows: Indices of the rows wanted; None for all.
        bits: Bits of the mantissa to keep; fewer compress better.

    Raises:
        QuestionError: An argument makes no sense.
        UnknownError: There is no such series.
    """
    if not 1 <= most <= MAX_BINS:
        raise QuestionError(f"bins must be from 1 to {MAX_BINS}, got {most}")
    wrong = [stat for stat in stats if stat not in STATS]
    if wrong or not stats:
        raise QuestionError(f"stats must be of {', '.join(STATS)}, got {', '.join(wrong)!r}")
    shown = _choose(run, series)
    wanted = np.arange(len(shown.rows)) if rows is None else np.array(rows, np.intp)
    if len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(shown.rows)):
        raise QuestionError(f"rows must be from 0 to {len(shown.rows) - 1}, got {rows}")
    found = shown.bins(start, stop, most)
    median = shown.median
    planes = [plane(found.cells, stat, median, shown.log)[:, wanted].T for stat in stats]
    header = {
        "format": FORMAT,
        "run": name,
        "series": series,
        "version": run.version,
        "complete": run.complete,
        "width": found.cells.width,
        "shape": [len(wanted), len(found.first)],
        "stats": list(stats),
        "rows": None if rows is None else wanted,
        "first": found.first,
        "last": found.last,
        "columns": found.columns,
    }
    return encode(header, [rounded(each, bits) for each in planes])


def rounded(values: Values, bits: int) -> Values:
    """Return values with so many bits of mantissa (24: all of them), rounded to nearest.

    Example:
        >>> rounded(np.array([1.0001, np.nan, -np.inf], np.float32), 12).tolist()
        [1.0, nan, -inf]
    """
    drop = 24 - bits
    if drop <= 0:
        return values
    raw = np.ascontiguousarray(values, np.float32).view(np.uint32)
    half = np.uint32(1 << (drop - 1))
    near = ((raw + half) & ~np.uint32((1 << drop) - 1)).view(np.float32)
    return np.asarray(np.where(np.isfinite(values) & np.isfinite(near), near, values))


def at_step(run: Shown, name: str, step: int, layer: int | None = None) -> dict[str, Any]:
    """Return exact values at the recorded step nearest to `step`: the answer of `step`.

    Args:
        run: The run.
        name: What it is called.
        step: Any step.
        layer: Index of a layer whose parameters are wanted.

    Raises:
        QuestionError: There is no such layer.
        UnknownError: Nothing has been recorded.
    """
    norms = run.series.get("grad_norm")
    if norms is None or not len(norms):
        raise UnknownError("no step has been recorded yet")
    if layer is not None and not 0 <= layer < len(run.layout.layers):
        raise QuestionError(f"layer must be from 0 to {len(run.layout.layers) - 1}, got {layer}")
    first = nearest(norms.steps, step)
    here = int(norms.steps[first])
    last = int(np.searchsorted(norms.steps, here, "right")) - 1
    answer: dict[str, Any] = {
        "format": FORMAT,
        "run": name,
        "version": run.version,
        "step": here,
        "exact": True,
        "series": {
            series.name: _column(series, here, LOOK_BACK if run.turns.several else 0)
            for series in run.series.values()
            if series.present and series.name != "strips"
        },
        "actions": run.records(here),
    }
    strips = run.series["strips"]
    scalars = strips.column(last)
    if scalars is not None:
        names = [row.name for row in strips.rows]
        answer |= dict(zip(names, _exact(scalars), strict=True))
    back = LOOK_BACK if layer is not None and run.turns.several else 0
    found = list(run.rows(max(0, first - back), last + 1))
    if found:
        row = found[-1][1]
        for key in ("optimizer", "epoch", "batch_idx", "accumulated", "amp_overflow"):
            answer[key] = row[key]
        for key in ("loss", "lr", "global_norm", "clipped_norm"):
            if answer[key] is not None:  # more digits than a strip has
                answer[key] = row[key]
    if layer is not None:
        answer["parameters"] = _parameters(run, found, layer)
    result: dict[str, Any] = json_safe(answer)
    return result


def _column(series: Series, step: int, back: int) -> dict[str, Any]:
    """Return a series' exact values at the last of its steps that is not after `step`.

    Each optimizer has a row of its own, with the layers that are its own. Where they take turns,
    the other layers' values are those of their own latest step, of the last `back` columns.
    """
    steps = series.steps
    stop = max(1, int(np.searchsorted(steps, step, "right")))
    start = int(np.searchsorted(steps, steps[stop - 1], "left"))
    values = np.full(len(series.rows), ABSENT, np.float32)
    earlier: dict[int, int] = {}
    for index in range(stop - 1, max(0, min(start, stop - back)) - 1, -1):
        missing = values == ABSENT
        if index < start and not missing.any():
            break
        column = series.column(index)
        if column is None:
            return {"step": steps[stop - 1], "values": None, "earlier": {}}
        values = np.where(missing, column, values)
        if index < start:
            found = np.flatnonzero(missing & (column != ABSENT)).tolist()
            earlier |= dict.fromkeys(found, int(steps[index]))
    return {"step": steps[stop - 1], "values": _exact(values), "earlier": earlier}


def _parameters(run: Shown, found: Sequence[Any], layer: int) -> list[dict[str, Any]]:
    """Return the exact norms of a layer's parameters, in the latest rows that have them."""
    name = run.layout.layers[layer]
    entries: dict[str, dict[str, Any]] = {}
    latest: dict[int, Any] = {int(row["optimizer"]): (layout, row) for layout, row in found}
    for layout, row in latest.values():
        if name not in layout.layers:
            continue
        for i, owner in enumerate(layout.layer_of):
            parameter = layout.parameters[i]
            if layout.layers[owner] != name or (parameter in entries and not row["has_grad"][i]):
                continue
            entries[parameter] = {
                "name": parameter,
                "grad_norm": row["grad_norm"][i] if row["has_grad"][i] else NOTHING,
                "shape_ndim": layout.ndim[i],
                "elements": layout.numel[i],
            }
    return list(entries.values())


def _exact(values: Values) -> list[Any]:
    """Return numbers as measured; None where nothing was, strings for NaN, Inf and no gradient."""
    special = {float(ABSENT): None, float(NO_GRADIENT): NOTHING}
    return [
        special[value] if value in special else float(f"{value:.7g}") for value in values.tolist()
    ]
