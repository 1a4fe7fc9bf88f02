"""The verdict on a case: harm, symptoms, which of them came first, and what heals it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.zoo.config import Case, Config
from benchmarks.zoo.remedies import remedies_of
from benchmarks.zoo.symptoms import (
    Symptom,
    dead_units,
    exploding,
    nonfinite,
    oscillating,
    saturated,
    vanishing_ratio,
    with_ablation,
)
from benchmarks.zoo.trace import Verdict
from benchmarks.zoo.train import Measured, measure

#: What a competent model reaches, over L_const; see `references.py`.
REFERENCES = Path(__file__).parent / "references.json"

#: Of two symptoms that begin at the same look, the one that brings the other about: a gradient that
#: explodes throws the loss about and ends in Inf; a layer on flat parts lets no gradient through.
EXPLAINS = {
    ("exploding", "oscillating"),
    ("exploding", "nonfinite"),
    ("oscillating", "nonfinite"),
    ("saturated", "vanishing"),
    ("dead_units", "vanishing"),
}

#: Symptoms that are measured in the second half of a run. What ends in NaN before that cannot have
#: them for certain, nor is it certain not to.
LASTING = ("dead_units", "saturated", "vanishing", "oscillating")

#: A layer with fewer dead units still passes a good part on; then what vanishes died first.
BLOCKED = 0.95

SUCCEEDED, FAILED, NEVER = 0.7, 0.4, 0.15


@dataclass
class Outcome:
    """All that was measured of one case.

    Attributes:
        case: Its name.
        reason: Why it was dropped; "" if it was kept.
        progress: p of the run; NaN when it went non-finite.
        twin: p of the twin; NaN without one.
        symptoms: What was measured, in no order.
        verdict: None if it was dropped.
    """

    case: str
    reason: str = ""
    progress: float = math.nan
    twin: float = math.nan
    symptoms: list[Symptom] = field(default_factory=list)
    verdict: Verdict | None = None


def reference_of(config: Config) -> float:
    """Return L_ref / L_const of the config's task and loss."""
    table: dict[str, float] = json.loads(REFERENCES.read_text())
    return table[f"{config.task}/{config.loss}" if config.loss else config.task]


def _progress(losses: list[float], config: Config) -> float:
    return (1 - float(np.median(losses))) / (1 - reference_of(config))


def progress_of(run: Measured, config: Config) -> float:
    """Return p over the last fifth; NaN for a run that went non-finite."""
    if run.nonfinite >= 0:
        return math.nan
    return _progress([k.loss for k in run.looks if k.step >= 0.8 * config.steps], config)


def best_progress(run: Measured, config: Config) -> float:
    """Return the highest p of any look."""
    finite = [look.loss for look in run.looks if math.isfinite(look.loss)]
    return max((_progress([loss], config) for loss in finite), default=0.0)


def examine(case: Case, seed: int) -> Outcome:
    """Measure a case with one seed: everything but its remedies."""
    config = replace(case.config, seed=seed)
    run = measure(config)
    p = progress_of(run, config)
    outcome = Outcome(case.name, progress=p)
    found = [dead_units(run), saturated(run), oscillating(run), nonfinite(run)]
    if case.twin_config is not None:
        twin_config = replace(case.twin_config, seed=seed)
        twin = measure(twin_config)
        outcome.twin = progress_of(twin, twin_config)
        if not outcome.twin >= SUCCEEDED:
            outcome.reason = "twin fails"
        found.append(exploding(run, twin))
        ratio = vanishing_ratio(run, twin, config)
        if ratio.zone == 1:
            by = "time" if config.arch == "rnn" else "layers"
            ablated = replace(config, ablate=by)
            change = abs(_final(measure(ablated)) - _final(run))
            ratio = with_ablation(ratio, change)
        found.append(ratio)
    if 0 <= run.nonfinite < config.steps / 2:  # nobody knows its second half
        found = [replace(s, zone=min(s.zone, 0)) if s.code in LASTING else s for s in found]
    outcome.symptoms = found
    if outcome.reason:
        return outcome
    if p >= SUCCEEDED:
        outcome.verdict = _healthy(case, p, found)
    elif p > FAILED:
        outcome.reason = "neither succeeded nor failed"
    elif case.twin_config is None:
        outcome.reason = "fails without a twin"
    else:
        outcome.verdict = _faulty(case, run, config, p, found)
        if outcome.verdict is None:
            outcome.reason = "fails without a clear first symptom"
    return outcome


def _final(run: Measured) -> float:
    return float(np.median([k.loss for k in run.looks if k.step >= 0.8 * run.looks[-1].step]))


def _verdict(case: Case, p: float, required: tuple[str, ...], tolerated: set[str], onset: int) -> Verdict:  # fmt: skip  # noqa: E501
    return Verdict(
        case=case.name,
        family=case.family,
        tricky=case.tricky,
        progress=round(p, 4) if math.isfinite(p) else 0.0,
        required=required,
        tolerated=tuple(sorted(tolerated - {*required})),
        onset=onset,
        remedies={},
    )


def _healthy(case: Case, p: float, found: list[Symptom]) -> Verdict:
    return _verdict(case, p, (), {s.code for s in found if s.zone >= 0}, 0)


def _faulty(
    case: Case, run: Measured, config: Config, p: float, found: list[Symptom]
) -> Verdict | None:
    there = [s for s in found if s.zone == 1]
    unclear = {s.code for s in found if s.zone == 0}
    if there:
        first = _cause([s for s in there if s.onset == min(t.onset for t in there)])
        if first is None:
            return None
        return _verdict(case, p, (first.code,), {s.code for s in there} | unclear, first.onset)
    if best_progress(run, config) <= NEVER and not unclear:  # nothing else could explain it
        return _verdict(case, p, ("stalled",), unclear, 0)
    return None


def _cause(together: list[Symptom]) -> Symptom | None:
    """Return which of several with one onset explains all others; None if that is open."""

    def explains(one: Symptom, other: Symptom) -> bool:
        if {one.code, other.code} == {"dead_units", "vanishing"}:
            dead = one if one.code == "dead_units" else other
            return (one is dead) == (dead.value >= BLOCKED)
        return (one.code, other.code) in EXPLAINS

    return next((s for s in together if all(explains(s, o) for o in together if o is not s)), None)


def judge(case: Case, with_remedies: bool = True) -> Outcome:
    """Return the verdict on a case, or why it was dropped."""
    outcome = examine(case, case.config.seed)
    if outcome.verdict is None:
        return outcome
    again = examine(case, case.config.seed + 1000)
    other = again.verdict
    if other is None or other.required != outcome.verdict.required:
        label = (other.required or "healthy") if other is not None else again.reason
        outcome.verdict, outcome.reason = None, f"another seed: {label}"
        return outcome
    if outcome.verdict.required and with_remedies:
        reached = {
            key: round(max(_reached(variant) for variant in variants), 4)
            for key, variants in remedies_of(case).items()
        }
        outcome.verdict = replace(outcome.verdict, remedies=reached)
    return outcome


def _reached(config: Config) -> float:
    p = progress_of(measure(config, brief=True), config)
    return p if math.isfinite(p) else -1.0


def plain(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as JSON, rounded, so that it is the same text each time."""

    def number(value: float) -> float | None:
        return float(f"{value:.4g}") if math.isfinite(value) else None

    return {
        "reason": outcome.reason,
        "progress": number(outcome.progress),
        "twin": number(outcome.twin),
        "symptoms": {
            s.code: {"value": number(s.value), "zone": s.zone, "onset": s.onset}
            for s in sorted(outcome.symptoms, key=lambda s: s.code)
        },
        "verdict": vars(outcome.verdict) if outcome.verdict is not None else None,
    }
