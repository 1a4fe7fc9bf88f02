"""How much of the error signal is left after its way back through the time steps of an RNN."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lightning_gradwatch.sample import TimeProfile

#: Shorter sequences have no distance for a signal to get lost over.
MIN_STEPS = 10


@dataclass(frozen=True)
class TimeReading:
    """One recurrent module in one backward pass.

    Attributes:
        module: Its name.
        time_steps: Length of the sequence.
        ratio: Gradient at the first tenth of the time steps over that at the last tenth.
        per_step: The factor by which each time step multiplies the signal, on average; 0 where
            `ratio` is.
    """

    module: str
    time_steps: int
    ratio: float
    per_step: float


def read_time(profile: TimeProfile) -> TimeReading | None:
    """Compare the two ends of a profile.

    Returns:
        None where that says nothing: a short sequence, a non-finite number, no gradient at the end.

    Example:
        >>> profile = TimeProfile("rnn", 0.5 ** np.arange(64)[::-1])
        >>> reading = read_time(profile)
        >>> f"{reading.ratio:.1e} {reading.per_step:.2f}"
        '3.5e-18 0.50'
    """
    norms = profile.grad_norm
    length = len(norms)
    if length < MIN_STEPS or not np.isfinite(norms).all():
        return None
    tenth = length // 10
    first, last = (_mean_norm(part) for part in (norms[:tenth], norms[-tenth:]))
    if last == 0.0:
        return None
    ratio = first / last
    per_step = math.exp(math.log(ratio) / (length - tenth)) if 0 < ratio < math.inf else 0.0
    return TimeReading(profile.module, length, ratio, per_step)


def _mean_norm(norms: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    top = float(norms.max())
    return top * float(np.sqrt(np.mean(np.square(norms / top)))) if top > 0 else 0.0
