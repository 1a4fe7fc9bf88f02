"""Joining segments whose parameters differ: by name, never by position."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lightning_gradwatch.finding import Finding
from lightning_gradwatch.layers import Layout
from lightning_gradwatch.recording.tables import Rows


def merge_layouts(layouts: Sequence[Layout]) -> Layout:
    """Return one layout that names every parameter of all; the latest sets the order.

    Example:
        >>> early = Layout.of({"a.weight": 1, "b.weight": 1})
        >>> late = Layout.of({"c.weight": 1, "b.weight": 1})
        >>> merge_layouts([early, late]).parameters
        ('c.weight', 'b.weight', 'a.weight')
    """
    kinds: dict[str, str] = {}
    members: dict[str, dict[str, tuple[int, int]]] = {}
    placed: set[str] = set()
    for layout in reversed(layouts):
        for layer, kind in zip(layout.layers, layout.kinds, strict=True):
            kinds.setdefault(layer, kind)
            members.setdefault(layer, {})
        for i, name in enumerate(layout.parameters):
            if name not in placed:
                placed.add(name)
                members[layout.layers[layout.layer_of[i]]][name] = (layout.numel[i], layout.ndim[i])
    # A layer all of whose parameters have moved to another one has nothing left to show.
    layers = [layer for layer in members if members[layer]]
    flat = [
        (j, name, *members[layer][name])
        for j, layer in enumerate(layers)
        for name in members[layer]
    ]
    return Layout(
        parameters=tuple(name for _, name, _, _ in flat),
        layers=tuple(layers),
        layer_of=tuple(j for j, _, _, _ in flat),
        numel=tuple(numel for _, _, numel, _ in flat),
        ndim=tuple(ndim for _, _, _, ndim in flat),
        kinds=tuple(kinds[layer] for layer in layers),
    )


def join_columns(
    parts: Sequence[tuple[Rows, Layout]],
    layout: Layout,
    make_dtype: Callable[[int], np.dtype[np.void]],
) -> Rows:
    """Concatenate rows under one layout; NaN, or False, where a part lacks a parameter.

    Args:
        parts: Rows and the layout their columns follow.
        layout: The layout to bring them under.
        make_dtype: Type of a row, given the number of parameters.
    """
    dtype = make_dtype(len(layout.parameters))
    if all(own == layout for _, own in parts) and len(parts) == 1:
        return parts[0][0]
    place = {name: i for i, name in enumerate(layout.parameters)}
    joined = np.zeros(sum(len(rows) for rows, _ in parts), dtype)
    start = 0
    for rows, own in parts:
        target = joined[start : start + len(rows)]
        columns = np.array([place[name] for name in own.parameters], np.intp)
        for name in dtype.names or ():
            if dtype[name].shape:
                if dtype[name].base.kind == "f":
                    target[name] = np.nan
                target[name][:, columns] = rows[name]
            else:
                target[name] = rows[name]
        start += len(rows)
    return joined


def merge_findings(parts: Sequence[tuple[str, Sequence[Finding]]]) -> tuple[Finding, ...]:
    """Merge what segments say, in order of first step; what is said later replaces the same.

    Two findings are the same if code and first step agree and they share a layer, or one of them
    concerns the whole model.
    """
    merged: list[Finding] = []
    for _, findings in parts:
        for finding in findings:
            merged = [old for old in merged if not _same(old, finding)]
            merged.append(finding)
    return tuple(sorted(merged, key=lambda finding: finding.first_step))


def _same(old: Finding, new: Finding) -> bool:
    overlap = not old.layers or not new.layers or not set(old.layers).isdisjoint(new.layers)
    return old.code == new.code and old.first_step == new.first_step and overlap
