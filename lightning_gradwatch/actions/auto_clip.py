"""AutoClip: clips to a percentile of the run's own gradient norms."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.errors import check_int, check_number
from lightning_gradwatch.finding import Finding


class AutoClip:
    """Scales all gradients together, to the `percentile`-th percentile of the norms so far.

    At 10, nine of ten steps are clipped: the step length is all but decoupled from the gradient's,
    in the unit of the run itself. The first norm of a run is its own percentile.

    The authors keep all norms; here the latest `history` are kept, which for runs no longer than
    that is the same. A norm that is not finite is not kept and not clipped: there is no direction
    to keep (see `SkipStep`).

    Args:
        percentile: 0 to 100.
        history: Norms kept, >= 1; 10 000 take 80 KB, and as many numbers in a checkpoint.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range.

    Example:
        >>> AutoClip(percentile=50)
        AutoClip(percentile=50.0, history=10000)

    References:
        Seetharaman, Wichern, Pardo, Le Roux: AutoClip: Adaptive Gradient Clipping for Source
        Separation Networks. MLSP 2020. https://arxiv.org/abs/2007.14469
    """

    def __init__(self, percentile: float = 10, history: int = 10_000) -> None:
        self.percentile = check_number("percentile", percentile, at_least=0, at_most=100)
        self.history = check_int("history", history, at_least=1)
        self._norms: dict[int, list[float]] = {}
        self._sorted: dict[int, list[float]] = {}

    def apply(self, findings: Sequence[Finding], training: Training) -> ActionRecord | None:
        """Clip this step if its norm is above the percentile; findings play no part."""
        norm = training.norm()
        if norm is None or not 0 < norm < math.inf:
            return None
        limit = self._learn(training.sample.optimizer, norm)
        change = training.clip_grad_norm(limit) if limit < norm else None
        if change is None:
            return None
        reason = (
            f"gradient norm {change.before:.4g} is above percentile {self.percentile:g} of "
            "the norms so far"
        )
        return ActionRecord(type(self).__name__, training.step, reason, *change)

    def _learn(self, optimizer: int, norm: float) -> float:
        """Add a norm and return the percentile, interpolated between neighbours."""
        norms = self._norms.setdefault(optimizer, [])
        ordered = self._sorted.setdefault(optimizer, [])
        norms.append(norm)
        insort(ordered, norm)
        if len(norms) > self.history:
            del ordered[bisect_left(ordered, norms.pop(0))]
        place = (len(ordered) - 1) * self.percentile / 100
        below = math.floor(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (place - below) * (ordered[above] - ordered[below])

    def state_dict(self) -> dict[str, Any]:
        """Return the norms, oldest first, by index of the optimizer."""
        return {"norms": {str(index): [*norms] for index, norms in self._norms.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._norms = {
            int(index): [float(x) for x in norms][-self.history :]
            for index, norms in state_dict["norms"].items()
        }
        self._sorted = {index: sorted(norms) for index, norms in self._norms.items()}

    def reset(self) -> None:
        """Forget the norms."""
        self._norms.clear()
        self._sorted.clear()

    def __repr__(self) -> str:
        return f"AutoClip(percentile={self.percentile}, history={self.history})"
