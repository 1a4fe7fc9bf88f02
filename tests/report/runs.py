"""Runs and findings to report on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.history import History
from lightning_gradwatch.testing import make_sample


def run(
    names: Sequence[str],
    norms: Callable[[int], Sequence[float | None]],
    steps: int = 40,
    **fields: object,
) -> History:
    """A history of `steps` steps with the norms that `norms(step)` gives."""
    history = History()
    for step in range(steps):
        values: Mapping[str, float | None] = dict(zip(names, norms(step), strict=True))
        history.append(make_sample(step, values, **fields))
    return history


def found(code: str, layers: Sequence[str] = (), **fields: object) -> Finding:
    """A finding with every part of its text filled in."""
    defaults: dict[str, object] = {
        "severity": Severity.ERROR,
        "first_step": 10,
        "last_step": 10,
        "summary": f"Summary of {code}",
        "cause": f"Cause of {code}",
        "remedies": (f"First remedy for {code}", f"Second remedy for {code}"),
    }
    return Finding(code, layers=tuple(layers), **{**defaults, **fields})  # type: ignore[arg-type]


TRANSFORMER = (
    "embed.weight",
    *(f"blocks.{i}.{part}.weight" for i in range(6) for part in ("attn", "mlp.0", "mlp.2")),
    "head.weight",
)

ONES = np.ones(len(TRANSFORMER)).tolist()
