"""Whether a run that was set back gets anywhere at the rate it has now."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

#: Steps at which a run whose very first step was far too long has to be below its start, how many
#: of the latest count, and the share of its start that is below.
_EARLY, _LATEST, _BELOW = (10, 25, 50), 5, 0.9
#: Steps it is given; the first ones do not count, the rest is compared by halves.
_STEPS, _SETTLING, _HALF = 45, 5, 20
#: By how much the later half has to lie below the earlier one.
_FALL = 0.97
#: Loss over the lowest so far above which what was learnt is lost again.
_LOST = 1.5
#: Loss over that of the initial weights below which the run has learnt something in any case.
_LEARNT = 0.7
#: Loss over that of the state gone back to, above which it is not that state any more.
_HELD = 1.5


@dataclass
class Probation:
    """The losses that follow on a rollback.

    A learning rate that is far too high may leave a run dead at once, at a loss that does not rise:
    units that never fire, or outputs that ignore the input. Only that it does not fall tells.

    Attributes:
        origin: Loss of the initial weights; NaN while unknown.
        level: Level of the loss at the state that was gone back to; NaN if it had none yet.
        set_back: Whether there was a rollback at all; before, only `origin` is learnt.
        losses: The losses since then.
    """

    origin: float = math.nan
    level: float = math.nan
    set_back: bool = False
    losses: list[float] = field(default_factory=list)

    def push(self, loss: float) -> None:
        """Add the loss of a step; NaN and Inf are passed over, and so is all that comes late."""
        if math.isfinite(loss) and len(self.losses) <= max(_STEPS, *_EARLY):
            self.losses.append(loss)
            if math.isnan(self.origin):
                self.origin = loss

    @property
    def is_thrown(self) -> bool:
        """Whether the first steps of a run have thrown it off, as far as the loss tells."""
        if self.set_back or len(self.losses) not in _EARLY or not min(self.losses) >= 0:
            return False
        return median(self.losses[-_LATEST:]) >= _BELOW * self.origin

    @property
    def has_failed(self) -> bool:
        """Whether the time is just over, and the run got nowhere."""
        if (
            not self.set_back
            or len(self.losses) != _STEPS
            or not min(*self.losses, self.origin) >= 0
        ):
            return False
        earlier, later = self.losses[_SETTLING:-_HALF], self.losses[-_HALF:]
        now = median(later)
        if not math.isnan(self.level):
            return now > _HELD * self.level
        smooth = [median(self.losses[i : i + 5]) for i in range(_STEPS - 5)]
        falls = now <= _FALL * median(earlier) and now <= _LOST * min(smooth)
        return now > _LEARNT * self.origin and not falls

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python types only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Probation:
        """Rebuild what `to_dict` returned."""
        return cls(**{**data, "losses": [float(x) for x in data["losses"]]})
