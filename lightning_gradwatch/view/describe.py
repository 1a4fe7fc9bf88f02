"""Everything about a run but its arrays: the answer of `run` in `frontend/API.md`."""

from __future__ import annotations

from typing import Any

import numpy as np

from lightning_gradwatch.recording.jsonsafe import json_safe
from lightning_gradwatch.report.report import Report
from lightning_gradwatch.report.verdict import idle, one_line, scope, since, title, where
from lightning_gradwatch.view.cells import ABSENT, Values, plane
from lightning_gradwatch.view.series import Series
from lightning_gradwatch.view.shown import Shown

#: The verdict on a recording of which nothing can be read.
UNREADABLE = "this recording cannot be read"

#: Version of the contract with the page.
FORMAT = 1


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
        idle="" if norms is None or not len(norms) else idle(norms.most, norms.nonfinite),
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
            "verdict": UNREADABLE if not len(steps) and run.unreadable else report.verdict,
            "healthy": report.healthy,
            "scope": scope(report),
            "findings": [
                finding.to_dict()
                | {
                    "title": title(finding),
                    "where": since(finding)
                    if (finding.code, finding.first_step) in run.open
                    else where(finding),
                    "summary": one_line(finding.summary) if finding.summary else "",
                    "cause": one_line(finding.cause) if finding.cause else "",
                    "remedies": [one_line(remedy) for remedy in finding.remedies],
                }
                for finding in report.findings
            ],
            "actions": [action.to_dict() for action in run.actions],
            "segments": run.segments(),
            "config": run.config,
            "environment": run.environment,
        }
    )
    # Long, and plain already.
    answer["layers"] = _layers(run, report)
    answer["series"] = [_series(series) for series in run.series.values() if series.present]
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
            "parameters": list(layout.parameters[starts[i] : starts[i + 1]]),
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
