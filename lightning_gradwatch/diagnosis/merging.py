"""Which findings of single steps are the same statement, and which of them tells it best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lightning_gradwatch.finding import Finding

#: By kind: the number that compares occurrences, and whether more of it is worse.
MEASURES: Mapping[str, tuple[str, bool]] = {
    "dead_units": ("dead_fraction", True),
    "exploding": ("norm_growth", True),
    "nonfinite": ("reproduced", True),
    "oscillating": ("climb", True),
    "saturated": ("saturated_fraction", True),
    "spike": ("factor", True),
    "stalled": ("step_length", False),
    "vanishing": ("learning_share", False),
    "vanishing in time": ("time_ratio", False),
}


def kind_of(finding: Finding) -> str:
    """Return the code, told apart where one code makes two statements."""
    in_time = finding.code == "vanishing" and "time_ratio" in finding.evidence
    return "vanishing in time" if in_time else finding.code


def key_of(finding: Finding) -> str:
    """Return what findings of the same statement have in common.

    Optimizers are kept apart, and so are the modules that a signal gets lost in and the layers that
    get none; everywhere else the layers concerned change from step to step.
    """
    kind = kind_of(finding)
    place = finding.layers if kind in ("vanishing in time", "no_gradient") else ()
    return " ".join([kind, str(int(finding.evidence.get("optimizer", 0))), *place])


def merge(known: Finding, new: Finding) -> Finding:
    """Return one finding for both: the span of steps, the count, the most telling evidence."""
    told = new if _tells_more(known, new) else known
    return replace(
        told,
        severity=max(known.severity, new.severity),
        first_step=min(known.first_step, new.first_step),
        last_step=max(known.last_step, new.last_step),
        count=known.count + new.count,
    )


#: Evidence of weights that were ill from the start, which what follows does not outdo.
_INITIAL = frozenset({"forward_growth", "early_elasticity"})


def _tells_more(known: Finding, new: Finding) -> bool:
    if known.code == "exploding" and _INITIAL & known.evidence.keys():
        return False
    name, more = MEASURES.get(kind_of(new), ("", True))
    old, value = known.evidence.get(name), new.evidence.get(name)
    if old is None or value is None:
        return old is None and (value is not None or new.severity > known.severity)
    return value > old if more else value < old
