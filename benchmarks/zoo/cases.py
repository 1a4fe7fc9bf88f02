"""How a catalogue is written: one line for each candidate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from benchmarks.zoo.config import Case, Config


def healthy(name: str, family: str, task: str, **values: Any) -> Case:
    """Return a run that should succeed, and that no careless rule calls sick."""
    return Case(name, family, Config(task, **values))


def tricky(name: str, family: str, task: str, **values: Any) -> Case:
    """Return a run that should succeed, of a kind that careless rules call sick."""
    return Case(name, family, Config(task, **values), tricky=True)


def faulty(name: str, family: str, twin: dict[str, Any], task: str, **values: Any) -> Case:
    """Return a run with one factor made faulty.

    Args:
        name: Of the case.
        family: What was made faulty.
        twin: Fields with the values that put that factor right.
        task: Of the run.
        **values: Other fields of its config, the faulty ones among them.
    """
    return Case(name, family, Config(task, **values), tuple(sorted(twin.items())))


def numbered(prefix: str, first_seed: int, cases: Iterable[Case]) -> tuple[Case, ...]:
    """Give each case its own seed, and its name the split it belongs to."""
    return tuple(
        replace(case, name=f"{prefix}-{case.name}", config=replace(case.config, seed=seed))
        for seed, case in enumerate(cases, first_seed)
    )
