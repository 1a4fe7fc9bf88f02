"""All candidates by split."""

from __future__ import annotations

from benchmarks.zoo.config import Case
from benchmarks.zoo.tuning import TUNING

HELD_OUT: tuple[Case, ...] = ()
FRESH: tuple[Case, ...] = ()

SPLITS: dict[str, tuple[Case, ...]] = {"tuning": TUNING, "held_out": HELD_OUT, "fresh": FRESH}
