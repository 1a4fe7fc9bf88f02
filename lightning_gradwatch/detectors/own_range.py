"""The range a run moves in by itself, from which an explosion is told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_gradwatch.detectors.baseline import Baseline
from lightning_gradwatch.detectors.depth import Before

#: Samples within which a run has no level of its own yet.
_YOUNG = 10
#: Latest steps whose median must be out of range to speak of a drift.
_DRIFT = 9
#: Robust standard deviations by which a step must stand out.
_SIGMAS = 4.0
#: Decades by which a drift must lead the level that follows it: slower growth is not diverging.
_DOUBLED = 0.3
_BASELINES = ("norms", "losses", "late_norms", "late_losses")


@dataclass
class OwnRange:
    """What the gradient norm and the loss of one optimizer have been like, and are now.

    Attributes:
        window: Steps that make up the level.
        norms: The run's own level of the gradient norm, steps out of range left out.
        losses: The same of the loss.
        late_norms: The norm of the very latest steps, whatever they were like.
        late_losses: The same of the loss.
        calm: Lowest level of the norm so far, in decades.
        start: Level at which the loss began, in decades.
        samples: Steps with a finite gradient.
        streak: Steps out of range in a row.
        signed: Whether the loss has been negative: one that crosses zero has no level to rise from.
        active: Whether an explosion is going on.
        norm: Norm of the latest step.
        loss: Loss of the latest step.
        length: Promised decrease of the loss in the latest measured step, over the loss.
        length_of: That step.
        onset_length: Length of the step that led out of range, before growth fed on itself.
        readings: Measured steps on which the initial weights were judged.
        steep: How many of them in a row were too steep.
        before: What is kept of the latest step.
        calm_lr: Learning rate when the loss was lowest.
        lowest: The loss at that time.
        peak_lr: Highest learning rate since then.
        returned: Times it came back from out of range by itself: a run of rare hard batches.
        looked: Whether the first forward pass has been judged.
    """

    window: int
    norms: Baseline = field(init=False)
    losses: Baseline = field(init=False)
    late_norms: Baseline = field(init=False)
    late_losses: Baseline = field(init=False)
    calm: float = math.inf
    start: float = math.nan
    samples: int = 0
    streak: int = 0
    signed: bool = False
    active: bool = False
    norm: float = math.nan
    loss: float = math.nan
    length: float = math.nan
    length_of: int = -1
    onset_length: float = math.nan
    readings: int = 0
    steep: int = 0
    before: Before | None = None
    calm_lr: float = math.nan
    lowest: float = math.inf
    peak_lr: float = -math.inf
    returned: int = 0
    looked: bool = False

    def __post_init__(self) -> None:
        self.norms, self.losses = Baseline(self.window), Baseline(self.window)
        self.late_norms, self.late_losses = Baseline(_DRIFT), Baseline(_DRIFT)

    def note_rate(self, loss: float, lr: float) -> None:
        """Remember the learning rate of the best step, and the highest since."""
        if not math.isfinite(lr):
            return
        self.peak_lr = max(self.peak_lr, lr)
        if loss < self.lowest:
            self.lowest, self.calm_lr, self.peak_lr = loss, lr, lr

    def learn(self, norm: float, loss: float) -> None:
        """Take a step into the run's own range; before the step is counted in `samples`."""
        self.norms.push(norm)
        self.losses.push(loss)
        if self.is_young:
            self.calm, self.start = self.norms.median, self.losses.median
        else:
            self.calm = min(self.calm, self.norms.median)

    def is_outside(self, norm: float, loss: float, factor: float, loss_factor: float) -> bool:
        """Whether norm and loss are both far above what the run is used to.

        Args:
            norm: Gradient norm, finite and positive.
            loss: Absolute loss; NaN if it is not known.
            factor: How far above its lowest level the norm is out of range.
            loss_factor: How far above the level at which it began the loss is out of range.
        """
        far, risen = math.log10(factor), math.log10(loss_factor)
        growth = math.log10(norm) - self.calm if len(self.norms) else 0.0
        if growth < far or (self.is_young and self.latest_length < 1):
            # After a sound step it is an uneven start, as with batches of one.
            return False
        if math.isnan(loss):  # only a far larger norm will do
            return growth >= 2 * far
        if loss == 0 or math.log10(loss) - self.start < risen:
            return False
        if self.is_young:
            return True
        rising = (
            self.late_norms.median - self.norms.median,
            (self.late_losses.median - self.losses.median),
        )
        drifted = (
            self.late_norms.median - self.calm >= far
            and self.late_losses.median - self.start >= risen
            and min(rising) >= _DOUBLED
        )
        # Small batches of a nearly solved task vary by decades; their own spread says so.
        return drifted or (
            self.norms.gap(norm) >= max(far / 2, _SIGMAS * self.norms.spread)
            and self.losses.gap(loss) >= _SIGMAS * self.losses.spread
        )

    @property
    def is_young(self) -> bool:
        """Whether the run has no level of its own yet."""
        return self.samples < _YOUNG

    @property
    def latest_length(self) -> float:
        """`length`, if it was measured on the latest step; else NaN."""
        known = self.before is not None and self.before.step == self.length_of
        return self.length if known else math.nan

    def is_rising(self, norm: float, loss: float) -> bool:
        """Whether neither norm nor loss, as far as known, is less than twice the latest."""
        return not (norm < 2 * self.norm or loss < 2 * self.loss)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python types only."""
        plain = {k: v for k, v in self.__dict__.items() if isinstance(v, (int, float, bool))}
        return plain | {
            **{name: getattr(self, name).state_dict() for name in _BASELINES},
            "before": None if self.before is None else self.before.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], window: int) -> OwnRange:
        """Rebuild what `to_dict` returned."""
        track = cls(window)
        for name, value in data.items():
            if name in _BASELINES:
                getattr(track, name).load_state_dict(value)
            elif name == "before":
                track.before = None if value is None else Before.from_dict(value)
            elif name != "window":
                setattr(track, name, value)
        return track
