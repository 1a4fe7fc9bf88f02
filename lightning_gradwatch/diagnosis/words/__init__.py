"""What is said of each kind of finding, one file a kind: `CAUSES` and `REMEDIES`, tables of lines.

Of the causes the first that applies is told; of the remedies all that apply, in this order. The
order is that of measured success on sick runs (`python -m benchmarks.detection`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from lightning_gradwatch.diagnosis.words import (
    dead_units,
    exploding,
    no_gradient,
    nonfinite,
    oscillating,
    saturated,
    spike,
    stalled,
    vanishing,
    vanishing_in_time,
)

#: By kind of finding (see `merging.kind_of`).
WORDS: Mapping[str, ModuleType] = {
    "dead_units": dead_units,
    "exploding": exploding,
    "no_gradient": no_gradient,
    "nonfinite": nonfinite,
    "oscillating": oscillating,
    "saturated": saturated,
    "spike": spike,
    "stalled": stalled,
    "vanishing": vanishing,
    "vanishing in time": vanishing_in_time,
}
