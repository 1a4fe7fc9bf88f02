"""AUTOTRAINER (ICSE 2021; TDSC 2024): its detection, after the paper and the published monitor.

At the end of every third epoch the gradients of one batch are looked at; what was seen once stays
seen. From 30 % of the planned epochs on the history of the accuracy is looked at as well, and only
a run that does not converge (accuracy never at Theta) or is stuck (no rise of delta) is reported,
as one problem: dying ReLU before exploding before vanishing before slow before oscillating. NaN and
losses >= 1e3 are reported at once, as exploding.

The later version judges one look earlier; in runs of ten epochs, where the original had fifty and
more, that would be the first epoch, at which every run is stuck. So it is left as it was.

A regression has no accuracy; the share of the first epoch's loss that is gone stands in for it.

The original has the accuracy of a whole epoch, the looks here are at every fifth batch. Swings and
rises count where they exceed their threshold by more than chance does with so few batches, or every
run that learns nothing would oscillate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.rivals.rule import NOT_FINITE, Rule
from benchmarks.rivals.seen import Array, Seen


@dataclass(frozen=True)
class AutoTrainer:
    """Thresholds, with the letters of the paper.

    Attributes:
        beta_1: Vanishing: gradient norm of the first weight over that of the last below this,
        beta_2: and the first below this.
        beta_3: Exploding: first over last above this.
        large_loss: Exploding: a loss of at least this.
        gamma: Dying ReLU: share of all gradient entries that are zero, at least.
        zeta: Oscillating: swings of the accuracy of at least this,
        eta: in at least this share of the epochs.
        delta: Slow: no rise of the accuracy from one epoch to the next of at least this.
        theta: Converged from this accuracy on.
        judgement: Share of the planned epochs after which the accuracy is judged.
        every: Epochs between two looks.
    """

    beta_1: float = 1e-3
    beta_2: float = 1e-4
    beta_3: float = 70.0
    large_loss: float = 1e3
    gamma: float = 0.7
    zeta: float = 0.03
    eta: float = 0.2
    delta: float = 0.01
    theta: float = 0.7
    judgement: float = 0.3
    every: int = 3


def judge(seen: Seen, params: AutoTrainer) -> dict[str, int]:
    """Look at every third epoch; the first problem ends the run."""
    gradients: set[str] = set()
    unconverged = stuck = swings = False
    for epoch in range(0, len(seen.by_epoch), params.every):
        row = int(seen.by_epoch[epoch][-1])
        step = int(seen.step[row])
        if not seen.epoch_finite[: epoch + 1].all():
            return {NOT_FINITE: step}
        if seen.epoch_loss[: epoch + 1].max() >= params.large_loss:
            return {"exploding": step}
        gradients |= _gradients(seen, row, params)
        if epoch and epoch + 1 >= params.judgement * seen.epochs:
            accuracy, error = seen.epoch_accuracy[: epoch + 1], seen.epoch_error[: epoch + 1]
            unconverged |= bool(accuracy.max() < params.theta)
            stuck |= not _rises(accuracy, error, params)
            swings |= _swings(accuracy, error, params)
        if unconverged or stuck:
            for code in ("dead_units", "exploding", "vanishing"):
                if code in gradients:
                    return {code: step}
            if unconverged and stuck:
                return {"stalled": step}
        if swings:
            return {"oscillating": step}
    return {}


def _rises(accuracy: Array, error: Array, params: AutoTrainer) -> bool:
    """Any rise of delta from one epoch to the next."""
    slack = np.hypot(error[1:], error[:-1])
    return bool((np.diff(accuracy) - slack >= params.delta).any())


def _gradients(seen: Seen, row: int, params: AutoTrainer) -> set[str]:
    found: set[str] = set()
    norm = seen.norm[row][seen.is_matrix]
    norm = norm[~np.isnan(norm)]
    if len(norm):
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = norm[0] / norm[-1]
        if ratio < params.beta_1 and norm[0] < params.beta_2:
            found.add("vanishing")
        if ratio > params.beta_3:
            found.add("exploding")
    there = ~np.isnan(seen.zero[row])
    if there.any():
        zero = np.average(seen.zero[row][there], weights=seen.numel[there])
        if zero >= params.gamma:
            found.add("dead_units")
    return found


def _swings(accuracy: Array, error: Array, params: AutoTrainer) -> bool:
    """Pair the local maxima with the local minima, in order, and count the distant pairs."""
    slack = np.sqrt(2) * float(np.mean(error))
    if len(accuracy) < 3:
        return False
    before, here, after = accuracy[:-2], accuracy[1:-1], accuracy[2:]
    high = here[(here >= before) & (here >= after)]
    low = here[(here <= before) & (here <= after)]
    pairs = min(len(high), len(low))
    count = int((high[:pairs] - low[:pairs] - slack >= params.zeta).sum())
    return count > 0 and count >= params.eta * len(accuracy)


RULE = Rule(
    "AUTOTRAINER",
    judge,
    AutoTrainer(),
    {
        "beta_1": tuple(10.0**e for e in range(-8, 1)),
        "beta_2": tuple(10.0**e for e in range(-10, 1)),
        "beta_3": (3.0, 10.0, 30.0, 70.0, 200.0, 1e3, 1e4, 1e6),
        "large_loss": (10.0, 100.0, 1e3, 1e4, 1e5, 1e7),
        "gamma": (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99),
        "zeta": (0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 2.0),
        "eta": (0.05, 0.1, 0.2, 0.3, 0.4, 0.5),
        "delta": (0.0, 1e-3, 3e-3, 0.01, 0.03, 0.1),
        "theta": (0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9),
        "judgement": (0.1, 0.3, 0.5, 0.7, 0.9),
        "every": (1, 3),
    },
)
