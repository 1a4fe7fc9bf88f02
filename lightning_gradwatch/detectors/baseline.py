"""A run's own normal range, in decades: a median and a spread that no outlier and no NaN can drag.

Gradient norms and losses vary by factors, not by amounts, so that everything here is a logarithm.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort

#: Median absolute deviation to standard deviation, for a normal distribution.
_MAD_TO_SIGMA = 1.4826


class Baseline:
    """Median and spread of log10 over the latest values.

    Args:
        window: Values kept, >= 1.
        floor: Smallest spread in decades, so that a perfectly even run does not call every tremor
            an outlier.

    Example:
        >>> baseline = Baseline(window=5)
        >>> for value in (1.0, float("nan"), 1.0, 1e9, 1.0, 0.0):
        ...     baseline.push(value)
        >>> len(baseline), baseline.median
        (4, 0.0)
        >>> baseline.gap(1000.0)
        3.0

    References:
        - Leys et al. (2013), Detecting outliers: do not use standard deviation around the mean, use
          absolute deviation around the median
    """

    def __init__(self, window: int = 64, floor: float = 0.1) -> None:
        self._window = window
        self._floor = floor
        self._recent: list[float] = []
        self._sorted: list[float] = []

    def __len__(self) -> int:
        """Values held."""
        return len(self._recent)

    def push(self, value: float) -> None:
        """Add a value. NaN, Inf, zero and negative ones carry no logarithm and are passed over."""
        if not 0.0 < value < math.inf:
            return
        log = math.log10(value)
        self._recent.append(log)
        insort(self._sorted, log)
        if len(self._recent) > self._window:
            oldest = self._recent.pop(0)
            del self._sorted[bisect_left(self._sorted, oldest)]

    @property
    def median(self) -> float:
        """Median of the logarithms; NaN while empty."""
        return _middle(self._sorted)

    @property
    def spread(self) -> float:
        """Robust standard deviation of the logarithms, at least `floor`."""
        middle = self.median
        mad = _middle(sorted(abs(log - middle) for log in self._sorted))
        return max(self._floor, _MAD_TO_SIGMA * mad) if self._sorted else self._floor

    def gap(self, value: float) -> float:
        """Decades by which `value` lies above the median; NaN without a baseline."""
        return math.log10(value) - self.median if value > 0.0 else -math.inf

    def state_dict(self) -> list[float]:
        """Return the values held, oldest first."""
        return list(self._recent)

    def load_state_dict(self, state: list[float]) -> None:
        """Take over what `state_dict` returned."""
        self._recent = [float(log) for log in state][-self._window :]
        self._sorted = sorted(self._recent)


def _middle(ordered: list[float]) -> float:
    if not ordered:
        return math.nan
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
