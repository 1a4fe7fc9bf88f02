"""All candidates by split."""

from __future__ import annotations

from benchmarks.zoo.config import Case
from benchmarks.zoo.fresh import FRESH
from benchmarks.zoo.held_out import HELD_OUT
from benchmarks.zoo.tuning import TUNING

SPLITS: dict[str, tuple[Case, ...]] = {"tuning": TUNING, "held_out": HELD_OUT, "fresh": FRESH}
