"""Runs written down as numbers: what a detector would see of healthy and of sick training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lightning_gradwatch.layers import Layout
from lightning_gradwatch.sample import Flow, Sample, TimeProfile
from lightning_gradwatch.testing import make_sample

#: Steps whose weight change is measured: the first ten, then every 50th.
FIRST, EVERY = 10, 50


def is_measured(step: int) -> bool:
    return step < FIRST or step % EVERY == 0


def deliver(samples: Sequence[Sample]) -> list[Sample]:
    """Hand each measured step's aftermath to the next sample, as the engine does, once."""
    delivered, due = [], None
    for sample in samples:
        delivered.append(replace(sample, update=due))
        due = sample.update if is_measured(sample.step) else None
    return delivered


def train(
    steps: int,
    gradients: Sequence[float | None] | Any,
    *,
    loss: float | Any = 2.3,
    weights: Sequence[float] | None = None,
    lr: float | Any = 0.1,
    optimizer: int = 0,
    scale: float = 1.0,
    **fields: Any,
) -> list[Sample]:
    """Plain gradient descent. `gradients`, `loss` and `lr` may be functions of the step."""
    made = []
    for t in range(steps):
        grads = gradients(t) if callable(gradients) else gradients
        rate = lr(t) if callable(lr) else lr
        values = [None if g is None else g * scale for g in grads]
        present = np.array([np.nan if g is None else g for g in grads])
        with np.errstate(over="ignore", invalid="ignore"):
            moved = rate * present
            falls = moved * present * scale  # the rate undoes the scale, as a user's would
        made.append(
            make_sample(
                t,
                values,
                weight_norm=weights or [5.0] * len(values),
                update_norm=moved,
                descent=falls,
                loss=(loss(t) if callable(loss) else loss) * scale,
                lr=rate,
                optimizer=optimizer,
                **fields,
            )
        )
    return deliver(made)


def in_time(steps: int, ratio: Any, length: int = 64) -> list[Sample]:
    """A recurrent layer whose time profile falls by `ratio(step)` from the last step back."""
    layout = Layout.of({"rnn.weight": 100, "head.weight": 100})
    samples = []
    for t in range(steps):
        tilt = ratio(t) if callable(ratio) else ratio
        flow = Flow((TimeProfile("rnn", np.logspace(np.log10(tilt), 0, length)),))
        samples.append(
            make_sample(
                t,
                {"rnn.weight": 1.0, "head.weight": 1.0},
                layout=layout,
                weight_norm=[5.0, 5.0],
                loss=2.3,
                flow=flow if is_measured(t) else None,
            )
        )
    return deliver(samples)


def through_json(state: Any) -> Any:
    return json.loads(json.dumps(state))


def steps_of(findings: Sequence[Any]) -> list[int]:
    return [finding.first_step for finding in findings]
