"""From what was measured to what is said of a remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from examples.patients import PATIENTS
from examples.treatments import Treatment

#: Gain in accuracy over the untreated patient from which a remedy helps, and a little.
HELPS, A_LITTLE = 0.25, 0.05


@dataclass(frozen=True)
class Outcome:
    """One patient under one remedy, for one seed.

    Attributes:
        score: Accuracy on unseen digits, 0 to 1.
        first: Error signal at the first layer (or time steps) over the last, at the first step.
        later: The same, median of the later steps; NaN where nothing finite was measured.
        found: Codes of severity WARNING or higher, in brackets those that were over by the end.
    """

    score: float
    first: float
    later: float
    found: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One patient under one remedy, over all seeds.

    Attributes:
        score: Mean accuracy.
        gain: Mean accuracy above that of the untreated patient.
        first: Geometric mean of the error signal at the first step.
        later: Geometric mean of its later median.
        found: Codes found with any seed; in brackets what was over by the end with each.
        verdict: `"helps"`, `"a little"`, `"no help"` or `"harms"`.
    """

    score: float
    gain: float
    first: float
    later: float
    found: tuple[str, ...]
    verdict: str


def judge(outcomes: Sequence[Outcome], untreated: Sequence[Outcome]) -> Cell:
    """Compare a treated patient with the untreated one.

    Example:
        >>> sick, cured = Outcome(0.1, 1e-5, 1e-5, ("vanishing",)), Outcome(0.9, 0.5, 0.5, ())
        >>> judge([cured], [sick]).verdict, judge([sick], [sick]).verdict
        ('helps', 'no help')
    """
    score = float(np.mean([o.score for o in outcomes]))
    gain = score - float(np.mean([o.score for o in untreated]))
    codes = dict.fromkeys(code for o in outcomes for code in o.found)
    return Cell(
        score,
        gain,
        _geometric_mean([o.first for o in outcomes]),
        _geometric_mean([o.later for o in outcomes]),
        tuple(code for code in codes if code.strip("()") == code or code[1:-1] not in codes),
        "helps"
        if gain >= HELPS
        else "a little"
        if gain >= A_LITTLE
        else "harms"
        if gain <= -A_LITTLE
        else "no help",
    )


def summary(treatment: Treatment, cells: Mapping[str, Cell]) -> str:
    """Say whether what articles promise was measured.

    Args:
        treatment: With its promise.
        cells: By patient, those that it was tried on.
    """
    helped = [name for name in PATIENTS if name in cells and _is_better(cells[name])]
    tried = [name for name in treatment.promised if name in cells]
    kept = [name for name in tried if name in helped]
    if not tried:
        word = "not tried"
    elif len(kept) == len(tried):
        word = "holds"
    else:
        word = "holds in part" if kept else "does not hold"
        word += f": no help for {_list([name for name in tried if name not in kept])}"
    beyond = [name for name in helped if name not in treatment.promised]
    return word + (f"; helps {_list(beyond)} as well" if beyond else "")


def _is_better(cell: Cell) -> bool:
    return cell.verdict in ("helps", "a little")


def _list(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _geometric_mean(ratios: Sequence[float]) -> float:
    if any(ratio == 0 for ratio in ratios):
        return 0.0
    logs = [math.log(ratio) for ratio in ratios if 0 < ratio < math.inf]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan
