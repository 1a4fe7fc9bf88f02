"""Which kind of module takes most of the error signal on its way back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lightning_gradwatch.detectors.inside import inner_rows
from lightning_gradwatch.detectors.sentences import amount
from lightning_gradwatch.sample import ModuleFlow, Sample

#: What a kind must leave of the signal, at most, to be worth naming.
_WORTH = 0.1


@dataclass(frozen=True)
class Drain:
    """Modules of one kind, and what each makes of the gradient that passes through it.

    Attributes:
        kind: Their class, or the name of a function.
        functional: They are functions.
        count: How many.
        first: The first of them, in order of execution.
        last: The last.
        gain: Factor by which each multiplies the gradient's norm, geometric mean.
    """

    kind: str
    functional: bool
    count: int
    first: str
    last: str
    gain: float

    @property
    def words(self) -> str:
        """The subject and predicate of a sentence."""
        thing = "function" if self.functional else "module"
        if self.count == 1:
            return f"the {self.kind} {thing} {self.first} multiplies it by {amount(self.gain)}"
        return (
            f"the {self.count} {self.kind} {thing}s from {self.first} to {self.last} multiply it "
            f"by {amount(self.gain)} each"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python types only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Drain:
        """Rebuild what `to_dict` returned."""
        return cls(**data)


def find_drain(sample: Sample, modules: ModuleFlow) -> Drain | None:
    """Return the kind of module that takes most of the signal; None if no kind takes much.

    Example:
        >>> from lightning_gradwatch.testing import make_flow, make_sample
        >>> names = {"fc1": 1e-4, "act1": 1e-4, "fc2": 1e-2, "act2": 1e-2, "head": 1.0}
        >>> flow = make_flow(
        ...     names,
        ...     kinds={"act1": "Sigmoid", "act2": "Sigmoid"},
        ...     gain={"act1": 0.2, "fc2": 0.7, "act2": 0.2},
        ... )
        >>> sample = make_sample(0, {"fc1.weight": 1e-9, "head.weight": 1.0}, flow=flow)
        >>> find_drain(sample, flow.modules).words
        'the 2 Sigmoid modules from act1 to act2 multiply it by 0.2 each'
    """
    found: dict[tuple[str, bool], list[tuple[int, float]]] = {}
    for i in inner_rows(sample, modules):
        gain = float(modules.gain[i])
        if 0.0 < gain < math.inf:
            key = modules.kinds[i], bool(modules.functional[i])
            found.setdefault(key, []).append((i, math.log(gain)))
    totals = {key: sum(log for _, log in rows) for key, rows in found.items()}
    if not totals:
        return None
    kind, functional = worst = min(totals, key=lambda key: totals[key])
    if totals[worst] > math.log(_WORTH):
        return None
    rows = [i for i, _ in found[worst]]
    gain = math.exp(float(np.mean([log for _, log in found[worst]])))
    names = modules.names
    return Drain(kind, functional, len(rows), names[rows[0]], names[rows[-1]], gain)
