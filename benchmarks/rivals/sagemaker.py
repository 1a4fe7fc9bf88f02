"""SageMaker Debugger's built-in rules, after their documentation; the rules themselves are closed.

`CORE` holds VanishingGradient, ExplodingTensor, DeadRelu and SaturatedActivation, `ALL` also
WeightUpdateRatio and LossNotDecreasing, the rules on progress. Every look is at every tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.rivals.rule import NOT_FINITE, Rule, note
from benchmarks.rivals.seen import Array, Seen


@dataclass(frozen=True)
class SageMaker:
    """Thresholds, by their documented defaults.

    Attributes:
        vanishing: Mean absolute gradient of any tensor below this.
        matrices_only: Leave biases and scales out of that.
        dead: Share of a layer's ReLUs that are not active.
        tanh: Input of tanh beyond which it is saturated, on both sides.
        sigmoid_low: The same for sigmoid, below.
        sigmoid_high: Above.
        saturated: Share of a layer's units.
        progress: Use the rules on updates and on the loss.
        large_update: Update ratio of any weight above this.
        small_update: Below this.
        loss_steps: Steps after which the loss is compared.
        loss_percent: By how many percent it has to be lower.
    """

    vanishing: float = 1e-7
    matrices_only: bool = False
    dead: float = 0.5
    tanh: float = 9.4999
    sigmoid_low: float = -23.0
    sigmoid_high: float = 16.99999
    saturated: float = 0.5
    progress: bool = False
    large_update: float = 10.0
    small_update: float = 1e-8
    loss_steps: int = 10
    loss_percent: float = 0.1


def judge(seen: Seen, params: SageMaker) -> dict[str, int]:
    """Apply every rule to every look."""
    found: dict[str, int] = {}
    with np.errstate(invalid="ignore"):
        small = seen.finite & (seen.mean_abs < params.vanishing)
        if params.matrices_only:
            small &= seen.is_matrix
        relu = np.array([kind.startswith("ReLU") for kind in seen.kinds], np.bool_)
        hits: list[tuple[str, Any]] = [
            ("vanishing", small.any(axis=1)),
            (NOT_FINITE, seen.nonfinite() | ~seen.output_finite.all(axis=1)),
            ("dead_units", (relu & (seen.inactive > params.dead)).any(axis=1)),
            ("saturated", _saturated(seen, params).any(axis=1)),
        ]
        if params.progress:
            ratio = seen.update_ratio
            hits += [
                ("exploding|oscillating", (ratio > params.large_update).any(axis=1)),
                ("stalled|vanishing", (ratio < params.small_update).any(axis=1)),
            ]
    for code, hit in hits:
        for step in seen.step[hit][:1]:
            note(found, code, int(step))
    if params.progress:
        _not_decreasing(found, seen, params)
    return found


def _saturated(seen: Seen, params: SageMaker) -> Array:
    """Beyond the limit, and for more than a share of the layer.

    Of that share only the part beyond +-5 was kept, which is never less than beyond the limit: in
    doubt the rule is taken to have seen it.
    """
    tanh = np.array([kind == "Tanh" for kind in seen.kinds], np.bool_)
    sigmoid = np.array([kind == "Sigmoid" for kind in seen.kinds], np.bool_)
    beyond = tanh & ((seen.low < -params.tanh) | (seen.high > params.tanh))
    beyond |= sigmoid & ((seen.low < params.sigmoid_low) | (seen.high > params.sigmoid_high))
    return beyond & (seen.beyond_5 > params.saturated)


def _not_decreasing(found: dict[str, int], seen: Seen, params: SageMaker) -> None:
    """Compare with the loss of at least so many steps before, every so many steps."""
    last = 0
    for row in range(1, len(seen.step)):
        if seen.step[row] - seen.step[last] < params.loss_steps:
            continue
        before, now = seen.loss[last], seen.loss[row]
        last = row
        if np.isfinite(before) and not now <= before - abs(before) * params.loss_percent / 100:
            note(found, "stalled", int(seen.step[row]))
            return


_GRID = {
    "vanishing": tuple(10.0**e for e in range(-14, -3)),
    "matrices_only": (False, True),
    "dead": (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99),
    "tanh": (2.0, 3.0, 5.0, 7.0, 9.4999, 15.0),
    "sigmoid_low": (-23.0, -15.0, -10.0, -7.0, -5.0),
    "sigmoid_high": (5.0, 7.0, 10.0, 16.99999),
    "saturated": (0.1, 0.25, 0.5, 0.75, 0.9),
}
CORE = Rule("SageMaker core", judge, SageMaker(), _GRID)
ALL = Rule(
    "SageMaker core + progress",
    judge,
    replace(SageMaker(), progress=True),
    {
        **_GRID,
        "large_update": (0.1, 0.3, 1.0, 3.0, 10.0, 100.0, 1e4),
        "small_update": (0.0, 1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5),
        "loss_steps": (10, 20, 50, 100, 200, 500),
        "loss_percent": (-100.0, -10.0, -1.0, 0.0, 0.1, 1.0),
    },
)
