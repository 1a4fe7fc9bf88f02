"""A run as the view shows it, from the history in memory: for a fit that recorded nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from lightning_gradwatch.history import History
from lightning_gradwatch.recording.flow import FlowLines
from lightning_gradwatch.view.cells import ABSENT, Values
from lightning_gradwatch.view.lines import FlowFeed, ProfileFeed
from lightning_gradwatch.view.measured import STRIPS, norms_by_layer
from lightning_gradwatch.view.shown import Shown, grad_norm_series, strip_series, update_series


def from_history(history: History) -> Shown:
    """Return what a live history holds: recent steps in full, older ones thinned.

    Example:
        >>> from lightning_gradwatch.testing import make_sample
        >>> history = History()
        >>> for step in range(3):
        ...     history.append(make_sample(step, [3.0, 4.0]))
        >>> from_history(history).series["grad_norm"].median.tolist()
        [3.0, 4.0]
    """
    run = Shown()
    run.layout, run.norm_type, run.complete = history.layout, history.norm_type, True
    order = np.argsort(history.steps, kind="stable")
    steps = history.steps[order]
    there = history.has_grad[order]
    norms = np.asarray(history.grad_norm[order], np.float32)
    series = grad_norm_series(history.layout)
    values = norms_by_layer(norms, there, history.layout, history.norm_type)
    series.extend(steps, run.turns.mark(values, history.optimizer[order]))
    run.add(series)
    strips = strip_series()
    strips.extend(steps, np.stack([_told(getattr(history, n)[order]) for n in STRIPS], axis=1))
    run.add(strips)
    ratio = np.asarray(history.update_ratio[order], np.float32)
    if history.layout.layers:
        update = update_series(history.layout)[0]
        update.extend(steps, _by_largest(ratio, history))
        run.add(update)
    _add_flow(run, history)
    return run


def _told(values: np.typing.NDArray[np.float64]) -> Values:
    with np.errstate(over="ignore"):
        return np.asarray(np.where(np.isnan(values), ABSENT, values), np.float32)


def _by_largest(ratio: Values, history: History) -> Values:
    """Return each layer's update ratio: that of its largest parameter, as norms are not kept."""
    layout = history.layout
    stops = [*layout.layer_starts[1:].tolist(), len(layout.parameters)]
    largest = [
        max(range(start, stop), key=lambda i: layout.numel[i])
        for start, stop in zip(layout.layer_starts.tolist(), stops, strict=True)
    ]
    found = ratio[:, largest]
    return np.where(np.isfinite(found), found, ABSENT)


def _add_flow(run: Shown, history: History) -> None:
    profiles: list[dict[str, Any]] = []
    modules: list[dict[str, Any]] = []
    lines = FlowLines()
    for step, flow in history.flow:
        profiles += [
            {"step": step, "module": profile.module, "grad_norm": profile.grad_norm.tolist()}
            for profile in flow.time_profiles
        ]
        if flow.modules is not None:
            modules.append(lines.entry(step, 0, flow.modules))
    feeds: Iterable[tuple[Any, list[dict[str, Any]]]] = (
        (ProfileFeed, profiles),
        (FlowFeed, modules),
    )
    for feed, entries in feeds:
        if entries:
            feed(run).load(entries)
