"""What can be wrong with gradients: one file per finding code, and the protocol for your own.

A detector turns samples into findings. It sees numbers only, no tensor and no Trainer, and so it
can neither slow the device down nor change training.

`protocol.py` says what a detector is. `baseline.py`, `own_range.py`, `depth.py` and
`time_profile.py`, `course.py` and `inside.py` hold what they measure with, `verdict.py` what stands
between two measurements, `sentences.py` how numbers are put into words.
"""

from __future__ import annotations

from lightning_gradwatch.detectors.dead_units import DeadUnits
from lightning_gradwatch.detectors.exploding import ExplodingGradient
from lightning_gradwatch.detectors.no_gradient import NoGradient
from lightning_gradwatch.detectors.nonfinite import NonFiniteGradient
from lightning_gradwatch.detectors.oscillating import Oscillating
from lightning_gradwatch.detectors.protocol import Detector, StatefulDetector
from lightning_gradwatch.detectors.saturated import SaturatedActivation
from lightning_gradwatch.detectors.spike import GradientSpike
from lightning_gradwatch.detectors.stalled import Stalled
from lightning_gradwatch.detectors.vanishing import VanishingGradient

__all__ = [
    "DeadUnits",
    "Detector",
    "ExplodingGradient",
    "GradientSpike",
    "NoGradient",
    "NonFiniteGradient",
    "Oscillating",
    "SaturatedActivation",
    "Stalled",
    "StatefulDetector",
    "VanishingGradient",
    "default_detectors",
]


def default_detectors() -> list[Detector]:
    """Return a fresh one of every built-in detector.

    Example:
        >>> [type(detector).__name__ for detector in default_detectors()][:2]
        ['ExplodingGradient', 'NonFiniteGradient']
    """
    return [
        ExplodingGradient(),
        NonFiniteGradient(),
        VanishingGradient(),
        DeadUnits(),
        SaturatedActivation(),
        Oscillating(),
        Stalled(),
        GradientSpike(),
        NoGradient(),
    ]
