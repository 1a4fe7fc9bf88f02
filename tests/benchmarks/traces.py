"""Hand-made runs for the rules and for the scoring."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.zoo.trace import RawActivation, RawStep, RawWeight, Trace, Verdict
from lightning_gradwatch.facts import ModelFacts
from lightning_gradwatch.sample import Sample

NAN = math.nan


def weight(name: str = "a.weight", norm: float = 1.0, **fields: Any) -> RawWeight:
    given = {
        "is_matrix": name.endswith("weight"),
        "grad_mean_abs": norm / 10,
        "grad_zero": 0.0,
        "grad_finite": True,
        "update_ratio": 1e-3,
    }
    return RawWeight(name=name, grad_norm=norm, **{**given, **fields})


def activation(name: str = "act", kind: str = "ReLU", **fields: Any) -> RawActivation:
    given = {
        "not_positive": 0.5,
        "units_inactive": 0.0,
        "input_min": -2.0,
        "input_max": 2.0,
        "input_beyond_5": 0.0,
        "finite": True,
    }
    return RawActivation(name=name, kind=kind, **{**given, **fields})


#: A network of one weight.
ONE = (weight(),)


def trace(
    weights: Callable[[int], Sequence[RawWeight]] | Sequence[RawWeight] = ONE,
    activations: Sequence[RawActivation] = (),
    loss: Callable[[int], float] = lambda step: 1.0 / (1 + step),
    accuracy: Callable[[int], float] = lambda step: min(1.0, step / 100),
    steps: int = 200,
    samples: Sequence[Sample] = (),
    case: str = "made",
    facts: ModelFacts | None = None,
) -> Trace:
    """A run looked at in each of its first ten steps and in every fifth after that."""
    raw = tuple(
        RawStep(
            step,
            loss(step),
            accuracy(step),
            tuple(weights(step) if callable(weights) else weights),
            tuple(activations),
        )
        for step in range(steps)
        if step < 10 or step % 5 == 0
    )
    return Trace(case, 0, steps, 10, tuple(samples), facts or ModelFacts(), raw)


def verdict(required: str = "", tolerated: str = "", **fields: Any) -> Verdict:
    """Codes separated by spaces."""
    given = {
        "case": "made",
        "family": "hand-made",
        "tricky": False,
        "progress": 0.0 if required else 1.0,
        "onset": 0,
        "remedies": {},
    }
    codes = {"required": tuple(required.split()), "tolerated": tuple(tolerated.split())}
    return Verdict(**{**given, **codes, **fields})
