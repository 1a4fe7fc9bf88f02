"""`dead_units`: units that are zero for every input, and stay so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lightning_gradwatch.detectors.inside import feeding_layers, inner_rows
from lightning_gradwatch.detectors.learning import Learning
from lightning_gradwatch.detectors.sentences import names
from lightning_gradwatch.detectors.verdict import Verdict
from lightning_gradwatch.errors import check_int, check_number
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.sample import ModuleFlow, Sample

#: Rows remembered between looks.
_MOST = 1024
#: Share that is told after two looks already, if so many steps lie between them.
_ALL, _APART = 0.95, 20


@dataclass
class _Looks:
    """The latest looks at one activation.

    Attributes:
        units: Its number of units.
        masks: Which units were active, one mask in hexadecimal a look; "" where not known.
        off: How many were not.
        count: Looks so far.
        step: Step of the latest look.
        apart: Steps between the latest look and the one before.
        born: Whether the first looks of all found it ill.
    """

    units: int
    masks: list[str] = field(default_factory=list)
    off: list[float] = field(default_factory=list)
    count: int = 0
    step: int = -1
    apart: int = 0
    born: bool = False

    def add(self, modules: ModuleFlow, row: int, most: int, step: int) -> None:
        """Take in one look."""
        packed = modules.active[row]
        self.masks = [*self.masks, "" if packed is None else packed.tobytes().hex()][-most:]
        self.off = [*self.off, float(modules.never_active[row])][-most:]
        self.apart = step - self.step if self.count else 0
        self.count, self.step = self.count + 1, step

    def dead(self, looks: int) -> float:
        """Share of the units that were off in all of the latest looks."""
        masks, off = self.masks[-looks:], self.off[-looks:]
        if "" in masks:  # too many units to be told apart: at least no look had fewer
            return min(off) / self.units
        active = np.bitwise_or.reduce(
            [np.frombuffer(bytes.fromhex(mask), np.uint8) for mask in masks]
        )
        return 1.0 - int(np.unpackbits(active).sum()) / self.units


class DeadUnits:
    """Finds layers most of whose units are zero whatever comes in: they neither speak nor learn.

    A unit counts as dead if no sample of the latest `patience` looks has switched it on; a look is
    a step whose modules are hooked. Works for ReLU and its kind, as modules and as functions, and
    for GELU and SiLU by their derivative.

    Args:
        fraction: Share of dead units that counts as ill, 0 < fraction <= 1 (healthy networks: up
            to 0.56; ill ones 0.75 and more).
        patience: Looks over which a unit must have been off, >= 1.
        sustained: Steps after which a symptom that does not go away becomes an ERROR, >= 1. It is
            only told as INFO while the outputs or the loss show that the model learns all the same.

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is out of range.

    Example:
        >>> from lightning_gradwatch.testing import make_flow, make_sample, replay
        >>> flow = make_flow(
        ...     {"fc": 0.1, "relu": 1.0, "head": 1.0},
        ...     kinds={"relu": "ReLU"},
        ...     active={"relu": [True] + [False] * 9},
        ... )
        >>> samples = [
        ...     make_sample(t, {"fc.weight": 0.1, "head.weight": 1.0}, flow=flow) for t in range(5)
        ... ]
        >>> finding = replay(DeadUnits(), samples)[0]
        >>> finding.first_step, finding.summary
        (2, '90 % of the units of relu are zero for every input of the last 3 looks.')

    References:
        - Maas et al. (2013), Rectifier nonlinearities improve neural network acoustic models
        - Lu et al. (2019), Dying ReLU and initialization: theory and numerical examples
    """

    def __init__(self, fraction: float = 0.72, patience: int = 3, sustained: int = 1000) -> None:
        self.fraction = check_number("fraction", fraction, above=0, at_most=1)
        self.patience = check_int("patience", patience, at_least=1)
        self.sustained = check_int("sustained", sustained, at_least=1)
        self.reset()

    def reset(self) -> None:
        """Forget the run."""
        self._rows: dict[str, _Looks] = {}
        self._verdicts: dict[int, Verdict] = {}
        self._learning = Learning()

    def update(self, sample: Sample) -> Iterator[Finding]:
        """Look at the activations that the sample carries, if any."""
        modules = sample.flow.modules if sample.flow is not None else None
        verdict = self._verdicts.setdefault(sample.optimizer, Verdict())
        self._learning.see(sample)
        if modules is not None:
            verdict.settle(self._look(sample, modules), sample.step)
        found = verdict.at(sample.step, self.sustained)
        if found is not None:
            yield self._learning.temper(found, sample.optimizer)

    def _look(self, sample: Sample, modules: ModuleFlow) -> Finding | None:
        if not modules.units.any():
            return None
        ill: list[tuple[int, float]] = []
        looked, seen = 0, self.patience
        for i in inner_rows(sample, modules):
            units = int(modules.units[i])
            if units < 2 or not np.isfinite(modules.never_active[i]):
                continue
            looked += 1
            name = modules.names[i]
            looks = self._rows.get(name)
            if looks is None or looks.units != units:
                if len(self._rows) >= _MOST:
                    continue
                looks = self._rows[name] = _Looks(units)
            looks.add(modules, i, self.patience, sample.step)
            share = looks.dead(self.patience) if looks.count >= self.patience else 0.0
            if share < self.fraction and looks.apart >= _APART and looks.dead(2) >= _ALL:
                share, seen = looks.dead(2), 2
            if share >= self.fraction:
                looks.born |= looks.count == self.patience
                ill.append((i, share))
        return self._finding(sample, modules, ill, looked, seen) if ill else None

    def _finding(
        self,
        sample: Sample,
        modules: ModuleFlow,
        ill: list[tuple[int, float]],
        looked: int,
        seen: int,
    ) -> Finding:
        rows = [modules.names[i] for i, _ in ill]
        share = max(dead for _, dead in ill)
        layers = feeding_layers(sample, modules, [i for i, _ in ill])
        evidence = {
            "dead_fraction": share,
            "least_dead_fraction": min(dead for _, dead in ill),
            "activations": float(len(ill)),
            "activations_seen": float(looked),
            "looks": float(seen),
            "born_dead": float(any(self._rows[name].born for name in rows)),
        }
        if sample.optimizer:
            evidence["optimizer"] = float(sample.optimizer)
        least, most = (f"{100 * x:.0f}" for x in (evidence["least_dead_fraction"], share))
        many = "All" if least == "100" else f"{most} %" if least == most else f"{least} to {most} %"
        summary = (
            f"{many} of the units of {names(rows, thing='activation')} are zero for every input of "
            f"the last {seen} looks."
        )
        step = sample.step
        return Finding("dead_units", Severity.WARNING, layers, step, step, 1, evidence, summary)

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen, as plain Python values."""
        return {
            "rows": {
                name: {**vars(x), "masks": [*x.masks], "off": [*x.off]}
                for name, x in self._rows.items()
            },
            "verdicts": {str(k): v.to_dict() for k, v in self._verdicts.items()},
            "learning": self._learning.to_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._rows = {
            str(name): _Looks(**{**x, "masks": [*x["masks"]], "off": [*x["off"]]})
            for name, x in state["rows"].items()
        }
        self._verdicts = {int(k): Verdict.from_dict(v) for k, v in state["verdicts"].items()}
        self._learning = Learning.from_dict(state["learning"])
