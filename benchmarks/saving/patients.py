"""A candidate: a run, what happens to it on its way, and the same run without that."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.saving.accidents import Accident
from benchmarks.zoo.config import Case, Config


@dataclass(frozen=True)
class Patient:
    """A candidate for the benchmark.

    Attributes:
        name: Unique over both halves.
        family: What goes wrong, or what is unusual about a run that is well; for the table.
        config: The run.
        accidents: Corrupt batches.
        twin: Fields and values that put right what is wrong with the config.
    """

    name: str
    family: str
    config: Config
    accidents: tuple[Accident, ...] = ()
    twin: tuple[tuple[str, Any], ...] = ()

    @property
    def healthy_twin(self) -> Patient:
        """The same run with nothing wrong."""
        return replace(self, config=replace(self.config, **dict(self.twin)), accidents=(), twin=())

    def digest(self) -> str:
        """Return a short hash of everything that decides the run."""
        text = f"{self.config.digest()}{self.accidents}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]


#: Families of the zoo in which steps are too long or not finite. The others vanish, die or stall
#: from the start, and their cures are changes of the network.
ACUTE = ("exploding", "oscillating", "nonfinite", "dead: lr", "dead: burst", "saturated: lr")


def of_zoo(cases: Iterable[Case]) -> tuple[Patient, ...]:
    """Return the zoo's acute cases, and of those with nothing wrong the first of each family.

    Where the loss is scaled, all of them: no limit on a gradient is right for every scale.
    """
    chosen: list[Patient] = []
    families: set[str] = set()
    for case in cases:
        if case.twin:
            wanted = case.family.startswith(ACUTE)
        else:
            wanted = case.family == "loss scale" or case.family not in families
            families.add(case.family)
        if wanted:
            chosen.append(Patient(case.name, case.family, case.config, (), case.twin))
    return tuple(chosen)


def struck(name: str, family: str, accident: Accident, task: str, **values: Any) -> Patient:
    """Return a run with corrupt batches."""
    return Patient(name, family, Config(task, **values), (accident,))


def jolted(name: str, family: str, schedule: str, task: str, **values: Any) -> Patient:
    """Return a run whose learning rate jumps for a step or a few."""
    twin = (("schedule", "constant"),)
    return Patient(name, family, Config(task, schedule=schedule, **values), (), twin)


def oversized(name: str, gain: float, task: str, **values: Any) -> Patient:
    """Return a run whose initial weights are too large."""
    return Patient(name, "large init", Config(task, gain=gain, **values), (), (("gain", 1.0),))


def numbered(prefix: str, first_seed: int, patients: Iterable[Patient]) -> tuple[Patient, ...]:
    """Give each its own seed and a name with the half it belongs to; the zoo's have both."""
    return tuple(
        replace(p, name=f"{prefix}-{p.name}", config=replace(p.config, seed=seed))
        for seed, p in enumerate(patients, first_seed)
    )
