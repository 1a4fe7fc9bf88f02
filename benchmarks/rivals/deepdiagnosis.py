"""DeepDiagnosis (ICSE 2022): its error conditions, after the published callback.

It looks at the end of every epoch, in a fixed order, and stops the run at the first problem. Its
condition on the range of the labels cannot be seen by a hook, and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.rivals.rule import NOT_FINITE, Rule
from benchmarks.rivals.seen import Array, Seen


@dataclass(frozen=True)
class DeepDiagnosis:
    """Thresholds of the published callback.

    Attributes:
        vanishing: Mean absolute gradient of a weight matrix below this.
        dead: Share of a ReLU's outputs <= 0, at least; looked at in the last epoch.
        saturated: Share of the inputs of tanh or sigmoid beyond +-5, more than.
        unchanged: Epochs in which a loss or the weights stay what they were.
        same_accuracy: Epochs in which the accuracy stays what it was.
    """

    vanishing: float = 1e-7
    dead: float = 0.7
    saturated: float = 0.5
    unchanged: int = 5
    same_accuracy: int = 20


def judge(seen: Seen, params: DeepDiagnosis) -> dict[str, int]:
    """Look at every epoch; the first problem ends the run."""
    epochs = seen.by_epoch
    losses = seen.epoch_loss.tolist()
    accuracies = [float(np.mean(seen.accuracy[rows])) for rows in epochs]
    for epoch, rows in enumerate(epochs):
        code = _activations(seen, rows, params, epoch, last=epoch + 1 == seen.epochs)
        code = code or _metrics(losses[: epoch + 1], accuracies[: epoch + 1], params)
        code = code or _gradients(seen, rows, params)
        if not code and (epoch + 1) % params.unchanged == 0:
            window = np.concatenate(epochs[epoch + 1 - params.unchanged : epoch + 1])
            code = _weights(seen, window)
        if code:
            return {code: int(seen.step[rows[-1]])}
    return {}


def _activations(seen: Seen, rows: Array, params: DeepDiagnosis, epoch: int, last: bool) -> str:
    row = int(rows[-1])
    if not seen.output_finite[rows].all():
        return NOT_FINITE
    for column, kind in enumerate(seen.kinds):
        relu = kind.startswith("ReLU")
        if relu and seen.not_positive[row, column] == 1:
            return "dead_units|nonfinite"  # a mean output of exactly 0: its "numerical error"
        if relu and last and seen.not_positive[row, column] >= params.dead:
            return "dead_units"
        bounded = kind in ("Tanh", "Sigmoid") and (epoch + 1) % params.unchanged == 0
        if bounded and seen.beyond_5[row, column] > params.saturated:
            return "saturated"
    return ""


def _metrics(losses: list[float], accuracies: list[float], params: DeepDiagnosis) -> str:
    if not np.isfinite(losses[-1]):
        return NOT_FINITE
    for values, looks in ((losses, params.unchanged), (accuracies, params.same_accuracy)):
        if len(values) % looks == 0 and len(set(values[-looks:])) == 1:
            return "stalled"
    return ""


def _gradients(seen: Seen, rows: Array, params: DeepDiagnosis) -> str:
    if not seen.finite[rows].all():
        return NOT_FINITE
    row = int(rows[-1])
    # From the output back, as backpropagation goes.
    for column in np.flatnonzero(seen.is_matrix)[::-1]:
        value = seen.mean_abs[row, column]
        if value == 0:
            return "vanishing|dead_units|nonfinite"  # exactly 0: its "numerical error"
        if value < params.vanishing:
            return "vanishing"
    return ""


def _weights(seen: Seen, rows: Array) -> str:
    """The mean of a weight matrix the same in every epoch: it does not move at all."""
    moved = seen.update_ratio[rows][:, seen.is_matrix]
    known = ~np.isnan(moved).all(axis=0)
    still = (np.nan_to_num(moved) == 0).all(axis=0)
    return "stalled|vanishing" if (still & known).any() else ""


RULE = Rule(
    "DeepDiagnosis",
    judge,
    DeepDiagnosis(),
    {
        "vanishing": tuple(10.0**e for e in range(-14, -2)),
        "dead": (0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0),
        "saturated": (0.1, 0.25, 0.5, 0.75, 0.9),
        "unchanged": (2, 3, 5, 8),
        "same_accuracy": (5, 10, 20, 40),
    },
)
