"""The answers of the view, for the plugin and for the HTML report alike: `frontend/API.md`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_gradwatch.recording.jsonsafe import json_safe
from lightning_gradwatch.report.report import Report
from lightning_gradwatch.report.verdict import one_line, scope, title, where
from lightning_gradwatch.view.cells import ABSENT, STATS, Values, plane
from lightning_gradwatch.view.message import encode
from lightning_gradwatch.view.series import Series
from lightning_gradwatch.view.shown import Shown, nearest

#: Version of the contract with the page.
FORMAT = 1

#: Most bins that may be asked for.
MAX_BINS = 8192


class QuestionError(ValueError):
    """A question makes no sense; the message says what would."""


class UnknownError(LookupError):
    """There is no such run or series; the message says what there is."""


def describe(run: Shown, name: str) -> dict[str, Any]:
    """Return everything about a run but its arrays: the answer of `run`.

    Args:
        run: The run.
        name: What it is called.
    """
    norms = run.series.get("grad_norm")
    steps = norms.steps if norms is not None else np.zeros(0, np.int64)
    losses = _losses(run)
    report = Report(
        findings=tuple(sorted(run.findings, key=lambda f: (-f.severity, f.first_step))),
        steps=len(steps),
        first_step=int(steps[0]) if len(steps) else -1,
        last_step=int(steps[-1]) if len(steps) else -1,
        epochs=run.epochs,
        parameters=len(run.layout.parameters),
        elements=sum(run.layout.numel),
        layers=len(run.layout.layers),
        first_loss=losses[0],
        last_loss=losses[1],
        config=run.config,
    )
    answer: dict[str, Any] = json_safe(
        {
            "format": FORMAT,
            "run": name,
            "version": run.version,
            "steps": report.steps,
            "first_step": report.first_step if len(steps) else None,
            "last_step": report.last_step if len(steps) else None,
            "epochs": run.epochs,
            "parameters": report.parameters,
            "elements": report.elements,
            "complete": run.complete,
            "writing": run.writing,
            "problems": run.problems,
            "verdict": report.verdict,
            "healthy": report.healthy,
            "scope": scope(report),
            "findings": [
                finding.to_dict()
                | {
                    "title": title(finding),
                    "where": where(finding),
                    "summary": one_line(finding.summary) if finding.summary else "",
                    "cause": one_line(finding.cause) if finding.cause else "",
                    "remedies": [one_line(remedy) for remedy in finding.remedies],
                }
                for finding in report.findings
            ],
            "actions": [action.to_dict() for action in run.actions],
            "layers": _layers(run, report),
            "series": [_series(series) for series in run.series.values() if series.present],
            "segments": run.segments(),
            "config": run.config,
            "environment": run.environment,
        }
    )
    return answer


def _losses(run: Shown) -> tuple[float, float]:
    """Return the first and the last finite loss, of the bins at hand; NaN without any."""
    strips = run.series.get("strips")
    if strips is None or not len(strips):
        return float("nan"), float("nan")
    row = [row.name for row in strips.rows].index("loss")
    ends = []
    for start, stop in ((None, strips.steps[:64][-1]), (strips.steps[-64:][0], None)):
        values = plane(strips.bins(start, stop, 64).cells, "mean", strips.median, strips.log)
        values = values[:, row]
        ends.append(values[np.isfinite(values)])
    return (
        float(ends[0][0]) if len(ends[0]) else float("nan"),
        float(ends[1][-1]) if len(ends[1]) else float("nan"),
    )


def _layers(run: Shown, report: Report) -> list[dict[str, Any]]:
    norms, layout = run.series.get("grad_norm"), run.layout
    if norms is None:
        return []
    touching: dict[str, list[int]] = {}
    for i, finding in enumerate(report.findings):
        for layer in finding.layers:
            touching.setdefault(layer, []).append(i)
    columns = {
        "median": norms.median,
        "low": norms.low,
        "high": norms.high,
        "max": norms.most,
        "update_ratio": _median(run.series.get("update_ratio")),
        "weight_norm": _latest(run.series.get("weight_norm")),
    }
    table = {key: _plain(values) for key, values in columns.items()}
    starts = [*layout.layer_starts.tolist(), len(layout.parameters)]
    return [
        {
            "name": name,
            "kind": layout.kinds[i],
            "parameters": layout.parameters[starts[i] : starts[i + 1]],
            "elements": sum(layout.numel[starts[i] : starts[i + 1]]),
            "nonfinite": int(norms.nonfinite[i]),
            "findings": touching.get(name, []),
            **{key: values[i] if values else None for key, values in table.items()},
        }
        for i, name in enumerate(layout.layers)
    ]


def _median(series: Series | None) -> Values:
    return series.median if series is not None and len(series) else np.zeros(0, np.float32)


def _latest(series: Series | None) -> Values:
    """Return the last known value of each row."""
    if series is None or not len(series):
        return np.zeros(0, np.float32)
    values = series.bins(int(series.steps[-32:][0]), None, 32)
    found = plane(values.cells, "mean", series.median, series.log)
    there = np.isfinite(found)
    last = len(found) - 1 - np.argmax(there[::-1], axis=0)
    latest = found[last, np.arange(found.shape[1])]
    return np.asarray(np.where(there.any(axis=0), latest, ABSENT), np.float32)


def _plain(values: Values) -> list[Any]:
    """Return numbers of seven digits, as many as float32 has; None for those not there."""
    return [float(f"{v:.7g}") if np.isfinite(v) else None for v in values.tolist()]


def _exact(values: Values) -> list[Any]:
    """Return numbers as measured: None where there is nothing, strings for NaN and Inf."""
    return [None if value == ABSENT else float(f"{value:.7g}") for value in values.tolist()]


def _series(series: Series) -> dict[str, Any]:
    low = series.least[np.isfinite(series.least)]
    high = series.most[np.isfinite(series.most)]
    medians = _plain(series.median)
    return {
        "name": series.name,
        "title": series.title,
        "columns": len(series),
        "log": bool(series.log.all()),
        "low": float(low.min()) if len(low) else None,
        "high": float(high.max()) if len(high) else None,
        "rows": [
            {
                "name": row.name,
                "kind": row.kind,
                "layer": row.layer,
                "log": row.log,
                "median": medians[i],
            }
            for i, row in enumerate(series.rows)
        ],
    }


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
            series.name: _column(series, here)
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
    found = [run.row(index) for index in range(first, last + 1)]
    if found[-1] is not None:
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


def _column(series: Series, step: int) -> dict[str, Any]:
    """Return a series' exact values at the last of its steps that is not after `step`."""
    steps = series.steps
    stop = max(1, int(np.searchsorted(steps, step, "right")))
    start = int(np.searchsorted(steps, steps[stop - 1], "left"))
    values: Values | None = None
    for index in range(start, stop):
        column = series.column(index)
        if column is None:
            break
        # Each optimizer has a row of its own, with the layers that are its own.
        values = column if values is None else np.where(column == ABSENT, values, column)
    return {"step": steps[stop - 1], "values": None if values is None else _exact(values)}


def _parameters(run: Shown, found: Sequence[Any], layer: int) -> list[dict[str, Any]]:
    """Return the exact norms of a layer's parameters."""
    name, entries = run.layout.layers[layer], {}
    for layout, row in filter(None, found):
        if name not in layout.layers:
            continue
        for i, owner in enumerate(layout.layer_of):
            parameter = layout.parameters[i]
            if layout.layers[owner] != name or (parameter in entries and not row["has_grad"][i]):
                continue
            entries[parameter] = {
                "name": parameter,
                "grad_norm": row["grad_norm"][i] if row["has_grad"][i] else None,
                "shape_ndim": layout.ndim[i],
                "elements": layout.numel[i],
            }
    return list(entries.values())
