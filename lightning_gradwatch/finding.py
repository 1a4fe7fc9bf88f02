"""What a detector says: a finding is data with evidence, never a bare bool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any

#: Every code a built-in detector can report, with what it says. Order: worst first.
CODES: dict[str, str] = {
    "nonfinite": "NaN or Inf in a gradient or in the loss",
    "exploding": "gradients grow out of their own range, and training diverges",
    "vanishing": "the error signal dies on its way back: early layers or time steps do not learn",
    "oscillating": "the step is too long: the loss swings or rises instead of falling",
    "stalled": "weights do not move although there is loss left to learn",
    "dead_units": "units that are zero for every input, and stay so",
    "saturated": "activations on their flat parts, where the derivative is about zero",
    "spike": "one or a few steps far out of the run's own range, from which it recovers",
    "no_gradient": "parameters that require a gradient and never get one",
}


class Severity(IntEnum):
    """How bad a finding is; ordered, so that `severity >= Severity.WARNING` reads as it should."""

    INFO = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True)
class Finding:
    """One statement about the backward pass, with the numbers it rests on.

    A detector returns one for every step at which the symptom is present (`count=1`); the diagnosis
    merges them over the run, which is what `watch.findings` holds.

    Attributes:
        code: One of `CODES`, or a dotted code of your own (`"my.code"`).
        severity: `Severity.INFO`, `WARNING` or `ERROR`.
        layers: Dotted names of the layers concerned, in order of execution; empty: the whole model.
        first_step: First step at which the symptom was seen (x axis of the loggers).
        last_step: Last such step.
        count: How many optimizer steps showed it.
        evidence: Name to number. Every number in a sentence comes from here.
        summary: What and where, in one sentence.
        cause: The likely cause, in one sentence.
        remedies: What to try, best first.

    Example:
        >>> Finding("spike", Severity.INFO, ("head",), 7, 7, evidence={"ratio": 31.0}).code
        'spike'
    """

    code: str
    severity: Severity
    layers: tuple[str, ...]
    first_step: int
    last_step: int
    count: int = 1
    evidence: Mapping[str, float] = field(default_factory=dict)
    summary: str = ""
    cause: str = ""
    remedies: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python types only, fit for JSON and for a checkpoint."""
        return asdict(self) | {
            "severity": self.severity.name,
            "layers": list(self.layers),
            "evidence": {k: float(v) for k, v in self.evidence.items()},
            "remedies": list(self.remedies),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Finding:
        """Rebuild what `to_dict` returned."""
        return cls(
            **{
                **data,
                "severity": Severity[data["severity"]],
                "layers": tuple(data["layers"]),
                "evidence": dict(data["evidence"]),
                "remedies": tuple(data["remedies"]),
            }
        )
