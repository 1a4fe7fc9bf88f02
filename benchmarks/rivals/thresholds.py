"""What is written by hand in a training script: the norm of a layer's gradient below or above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.rivals.rule import NOT_FINITE, Rule, note
from benchmarks.rivals.seen import Seen


@dataclass(frozen=True)
class Thresholds:
    """Limits of the norm of a layer's gradient.

    Attributes:
        low: Vanishing below this.
        high: Exploding above this.
        looks: On how many looks any layer must be beyond the limit.
    """

    low: float = 1e-6
    high: float = 100.0
    looks: int = 1


def judge(seen: Seen, params: Thresholds) -> dict[str, int]:
    """Compare the norm of every layer's gradient with two numbers."""
    found: dict[str, int] = {}
    columns = list(seen.layers.values())
    if not columns:
        return found
    squares = np.where(np.isnan(seen.norm), 0.0, seen.norm) ** 2
    has_gradient = ~np.isnan(seen.norm) | ~seen.finite
    norm = np.stack([np.sqrt(squares[:, c].sum(axis=1)) for c in columns], axis=1)
    present = np.stack([has_gradient[:, c].any(axis=1) for c in columns], axis=1)
    small, large = present & (norm < params.low), present & (norm > params.high)
    finite = np.stack([seen.finite[:, c].all(axis=1) for c in columns], axis=1)
    for code, hit in (("vanishing", small & finite), ("exploding", large & finite)):
        steps = seen.step[hit.any(axis=1)]
        if len(steps) >= params.looks:
            note(found, code, int(steps[params.looks - 1]))
    for step in seen.step[seen.nonfinite()][:1]:
        note(found, NOT_FINITE, int(step))
    return found


RULE = Rule(
    "norm < 1e-6 or > 100",
    judge,
    Thresholds(),
    {
        "low": tuple(10.0**e for e in range(-14, -1)),
        "high": tuple(10.0 ** (e / 2) for e in range(17)),
        "looks": (1, 2, 3, 5, 10, 20),
    },
)
