"""The arguments of `GradWatch` and `GradientWatcher`, checked once, at construction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from typing import Any

from lightning_gradwatch.costs import Intervals
from lightning_gradwatch.errors import check_int, check_number

#: On so many first steps of each optimizer, updates and flow are sampled whatever the interval.
FIRST_STEPS = 10

#: So many steps are between two measurements of weight changes where no module is hooked.
UPDATES_ALONE = 50


@dataclass(frozen=True)
class Settings:
    """What was asked for; see `GradWatch` for the meaning of each name.

    Attributes:
        updates_alone: The interval of weight changes where `flow_every_n_steps` is 0.
    """

    every_n_steps: int = 1
    flow_every_n_steps: int = 50
    log_every_n_steps: int | None = None
    norm_type: float = 2.0
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None
    record: bool | str = True
    budget: float | None = None
    updates_alone: int = UPDATES_ALONE

    @classmethod
    def check(
        cls,
        *,
        every_n_steps: int,
        flow_every_n_steps: int,
        log_every_n_steps: int | None,
        norm_type: float | str,
        include: Sequence[str] | str | None,
        exclude: Sequence[str] | str | None,
        record: bool | str | PathLike[str],
        budget: float | None = None,
    ) -> Settings:
        """Validate every argument.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: a value is out of range; the message shows the value and the choices.
        """
        if log_every_n_steps is not None:
            check_int("log_every_n_steps", log_every_n_steps, at_least=1)
        if not isinstance(record, (bool, str, PathLike)):
            raise TypeError(f"record must be True, False or a path, got {record!r}")
        return cls(
            every_n_steps=check_int("every_n_steps", every_n_steps, at_least=1),
            flow_every_n_steps=check_int("flow_every_n_steps", flow_every_n_steps, at_least=0),
            log_every_n_steps=log_every_n_steps,
            norm_type=_norm_type(norm_type),
            include=_patterns("include", include),
            exclude=_patterns("exclude", exclude),
            record=record if isinstance(record, bool) else fspath(record),
            budget=None if budget is None else check_number("budget", budget, above=0, at_most=1),
        )

    @property
    def intervals(self) -> Intervals:
        """The intervals of norms, and of looks into the backward pass or at weight changes."""
        return Intervals(self.every_n_steps, self.flow_every_n_steps or self.updates_alone)

    def at(self, intervals: Intervals) -> Settings:
        """Return the same at other intervals; no module is hooked if none was to be."""
        norms, looks = intervals
        if not self.flow_every_n_steps:
            return replace(self, every_n_steps=norms, updates_alone=looks)
        return replace(self, every_n_steps=norms, flow_every_n_steps=looks)

    def samples_flow(self, count: int) -> bool:
        """Whether module hooks are wanted on an optimizer's step number `count` (from 0)."""
        every = self.flow_every_n_steps
        return every > 0 and (count < FIRST_STEPS or count % every == 0)

    def samples_update(self, count: int) -> bool:
        """Whether the weight change of step number `count` is measured.

        Always of two steps in a row: only neighbours tell whether steps undo one another.
        """
        return count < FIRST_STEPS or count % (self.flow_every_n_steps or self.updates_alone) <= 1

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for the recording and for the key of the checkpoint state."""
        return {
            "every_n_steps": self.every_n_steps,
            "flow_every_n_steps": self.flow_every_n_steps,
            "log_every_n_steps": self.log_every_n_steps,
            "norm_type": "inf" if math.isinf(self.norm_type) else self.norm_type,
            "include": None if self.include is None else list(self.include),
            "exclude": None if self.exclude is None else list(self.exclude),
            "record": self.record,
        } | ({} if self.budget is None else {"budget": self.budget})


def _norm_type(value: float | str) -> float:
    if value == "inf":
        return math.inf
    wanted = f"norm_type must be a number > 0 or 'inf', got {value!r}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(wanted) if not isinstance(value, str) else ValueError(wanted)
    if not value > 0:
        raise ValueError(wanted)
    return float(value)


def _patterns(name: str, value: Sequence[str] | str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    patterns = (value,) if isinstance(value, str) else tuple(value)
    if not patterns or not all(isinstance(p, str) and p for p in patterns):
        raise ValueError(
            f"{name} must be glob patterns over dotted names, like ['encoder.*'], got {value!r}"
        )
    return patterns
