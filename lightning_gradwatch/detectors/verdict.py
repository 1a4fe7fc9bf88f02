"""A verdict that stands from one measured step to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lightning_gradwatch.finding import Finding, Severity

#: Measurements kept.
KEPT = 10


@dataclass
class Verdict:
    """What is held of one optimizer (depth) or of one recurrent module (time).

    Attributes:
        readings: The latest measurements, oldest first, a few numbers each.
        count: Measurements so far.
        since: Step at which the symptom was first seen, if it is there now.
        finding: What to say at each step until the next measurement; None: nothing.
    """

    readings: list[list[float]] = field(default_factory=list)
    count: int = 0
    since: int | None = None
    finding: Finding | None = None

    def add(self, reading: list[float]) -> None:
        """Take in a measurement."""
        self.count += 1
        self.readings = [*self.readings[1 - KEPT :], reading]

    def settle(self, finding: Finding | None, step: int) -> None:
        """Decide what is said until the next measurement."""
        self.finding = finding
        if finding is None:
            self.since = None
        elif self.since is None:
            self.since = step

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python types only."""
        found = None if self.finding is None else self.finding.to_dict()
        return {**self.__dict__, "finding": found, "readings": [[*r] for r in self.readings]}

    def at(self, step: int, sustained: int) -> Finding | None:
        """Return what is to be said at a step: an ERROR once it has lasted `sustained` steps."""
        if self.finding is None or self.since is None:
            return None
        severity = Severity.ERROR if step - self.since >= sustained else Severity.WARNING
        return replace(self.finding, severity=severity, first_step=step, last_step=step)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Verdict:
        """Rebuild what `to_dict` returned."""
        found = None if data["finding"] is None else Finding.from_dict(data["finding"])
        readings = [[float(x) for x in r] for r in data["readings"]]
        return cls(readings, int(data["count"]), data["since"], found)
