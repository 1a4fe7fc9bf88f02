"""Scores as rows of tables, as the document that is kept, and as data."""

from __future__ import annotations

import json
import math
import platform
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.saving.patients import Patient
from benchmarks.saving.policies import FIXED, RESCUE
from benchmarks.saving.scoring import Score
from benchmarks.saving.trial import Result
from benchmarks.saving.truth import Dying, Key
from benchmarks.tables import markdown

HEADS = (
    "policy",
    "saved",
    "beyond",
    "harmed",
    "bit-identical when quiet",
    "steps lost, median (worst)",
    "at most a tenth",
    "loss over best fixed, median",
    "within a tenth",
    "step time",
)
#: The same for a terminal.
SHORT = ("policy", "saved", "beyond", "harmed", "same", "lost", "<=.1", "loss", "<=1.1", "time")


#: How far the runs of a half were known when the actions got their last shape.
KNOWN = {
    "fresh": "Never used for the actions before these were frozen; scored once.",
    "held_out": "Nothing was tuned on these runs, but it was seen what earlier versions lost.",
    "tuning": "The actions were tuned on these runs.",
}


@dataclass
class Half:
    """All that was found out about one half.

    Attributes:
        name: "fresh", "held_out" or "tuning".
        sick: The dying runs.
        well: The others.
        dropped: Reason by name.
        results: Of every trial.
        scores: By policy, in the order of the table.
        costs: Step time over that of the plain run, by policy; empty if not measured.
    """

    name: str
    sick: list[Dying]
    well: list[Patient]
    dropped: dict[str, str]
    results: dict[Key, Result]
    scores: list[Score] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)

    @property
    def patients(self) -> set[Patient]:
        """All that were kept; a healthy twin has the name of its patient, and is none."""
        return {*self.well, *(case.patient for case in self.sick)}

    @property
    def savable(self) -> list[Dying]:
        """Dying runs that some fixed setting saves."""
        return [case for case in self.sick if case.saviours]


def rows(half: Half) -> list[list[str]]:
    """Return a row for each policy."""
    return [_row(score, half.costs.get(score.policy.name, math.nan)) for score in half.scores]


def _row(s: Score, cost: float) -> list[str]:
    refused = f" ({len(s.refused)} refused)" if s.refused else ""
    lost = f"{statistics.median(s.lost):.1%} ({max(s.lost):.0%})" if s.saved else "-"
    of_saved = len(s.saved)
    return [
        s.policy.name,
        f"{of_saved} of {of_saved + len(s.missed)}",
        f"{len(s.beyond)} of {len(s.beyond) + len(s.hopeless)}" if s.beyond or s.hopeless else "-",
        f"{len(s.harmed)} of {len(s.harmed) + len(s.unharmed)}{refused}",
        f"{s.identical} of {s.quiet}" if s.quiet else "-",
        lost,
        f"{s.affordable} of {of_saved}",
        f"{statistics.median(s.loss):.2f}" if s.saved else "-",
        f"{s.close} of {of_saved}",
        "-" if math.isnan(cost) else f"x {cost:.2f}",
    ]


def fixed_rows(half: Half) -> list[list[str]]:
    """Return for each fixed setting how many of the dying it saves when applied from the start."""
    total = str(len(half.savable))
    return [
        [p.name, f"{sum(p.name in case.saviours for case in half.savable)} of {total}"]
        for p in FIXED
    ]


def family_rows(half: Half) -> list[list[str]]:
    """Return for each family how many of its savable runs each policy saves."""
    families: dict[str, list[Dying]] = {}
    for case in half.savable:
        families.setdefault(case.patient.family, []).append(case)
    saved = [{patient.name for patient in s.saved} for s in half.scores]
    return [
        [family, str(len(group)), *(str(sum(c.patient.name in s for c in group)) for s in saved)]
        for family, group in sorted(families.items())
    ]


def story(half: Half, patient: Patient) -> str:
    """Return in one line what our rescue did to a run."""
    r = half.results[patient, RESCUE, patient.config.seed]
    did = ", ".join(f"{n} x {name}" for name, n in r.actions.items()) or "nothing"
    first = f" First: step {r.first[0][0]}, {r.first[0][1]}: {r.first[0][2]}" if r.first else ""
    if r.error:
        first += f" Ended by {r.error}"
    saviours = next((c.saviours for c in half.sick if c.patient == patient), ())
    fixed = f" Saved from the start by {', '.join(saviours)}." if saviours else ""
    codes = ", ".join(f"{code} at {step}" for code, step in r.codes.items()) or "nothing"
    return (
        f"`{patient.name}` ({patient.family}, p {r.progress:.2f}, {r.steps} of "
        f"{patient.config.steps} steps):{fixed} Found {codes}. Did {did}.{first}"
    )


def losses(half: Half) -> list[str]:
    """Describe what our rescue does not save, and what it harms."""
    ours = next((s for s in half.scores if s.policy == RESCUE), None)
    if ours is None:
        return []
    lines = [f"not saved: {story(half, patient)}" for patient in ours.missed]
    lines += [f"harmed: {story(half, patient)}" for patient in ours.harmed]
    return lines


def section(half: Half) -> str:
    """Return one half in markdown."""
    ours = next((s for s in half.scores if s.policy == RESCUE), None)
    hopeless = len(half.sick) - len(half.savable)
    lines = [
        f"# {half.name}",
        KNOWN.get(half.name, ""),
        f"{len(half.sick)} dying runs, {len(half.savable)} of them saved by some fixed setting "
        f"from the start; {len(half.well)} runs that are well, measured on three seeds; "
        f"{len(half.dropped)} candidates dropped.",
        markdown("Policies", HEADS, rows(half)),
        markdown("Fixed settings, from the start", ("setting", "saves"), fixed_rows(half)),
        markdown(
            "Saved, by family",
            ("family", "runs", *(s.policy.name for s in half.scores)),
            family_rows(half),
        ),
    ]
    if ours is not None:
        wrong = losses(half)
        lines.append(
            f"## What rescue() does not save, and what it harms ({len(wrong)})\n\n"
            f"Of the {len(ours.missed) + len(ours.hopeless)} dying runs that stay dead, "
            f"{ours.advised} are told what has to change: a finding with remedies.\n\n"
            + ("\n".join(f"- {line}" for line in wrong) or "Nothing.")
        )
        named = [story(half, p) for p in (*ours.beyond, *ours.hopeless)]
        lines.append(
            f"## What no fixed setting saves ({hopeless}); rescue() saves {len(ours.beyond)}\n\n"
            + ("\n".join(f"- {line}" for line in named) or "None.")
        )
    harmed = [
        f"{s.policy.name}: " + ", ".join(f"`{p.name}` ({p.family})" for p in s.harmed)
        for s in half.scores
        if s.harmed
    ]
    lines.append("## Harmed\n\n" + ("\n".join(f"- {line}" for line in harmed) or "None."))
    reasons = Counter(half.dropped.values())
    lines.append(
        "## Dropped\n\n" + "\n".join(f"- {reason}: {n}" for reason, n in sorted(reasons.items()))
    )
    return "\n\n".join(lines)


def document(halves: Sequence[Half], command: str) -> str:
    """Return the whole result in markdown."""
    head = f"""# `{command}`

Which policy keeps a dying run alive, and what it does to one that is well. torch
{torch.__version__}, {platform.machine()}, CPU, one thread a run; every run is decided by its seed.

* **Dying**: reaches no more than 0.4 of the way from the best constant predictor to a competent
  model, or ends in NaN, on each of three seeds, while its twin without the fault reaches 0.7.
* **Saved**: reaches 0.7 under the policy. Counted among those that at least one fixed setting saves
  when it is there from the start; *beyond* are the others, tried with rescue() alone.
* **Harmed**: a run that is well and, under the policy, does not reach 0.7, or ends on all of three
  seeds with a higher loss, in the mean by more than a tenth (and a hundredth of the loss of the
  best constant predictor). rescue() is always tried on three seeds, and may fail on none; the
  others on further seeds only where the first one ends higher.
* **Bit-identical when quiet**: of the healthy runs in which no action intervened.
* **Steps lost**: not in the weights at the end, because left out or undone; told by the weights
  themselves. Overflows under a gradient scaler do not count.
* **Step time**: mean CPU time of a training step over that of the plain run, 20 layers of 256,
  Adam, batches of 64."""
    return "\n\n".join([head, *(section(half) for half in halves)]) + "\n"


def data(halves: Sequence[Half], command: str) -> str:
    """Return every trial as JSON, a case a line; a loss that is not finite is null."""
    parts = [f'"{half.name}": {_plain(half)}' for half in halves]
    return f'{{"command": {json.dumps(command)},\n{",".join(parts)}}}\n'


def _plain(half: Half) -> str:
    cases: dict[str, dict[str, Any]] = {
        case.patient.name: {
            "family": case.patient.family,
            "state": "dying",
            "saviours": case.saviours,
            "best": _finite(case.best),
        }
        for case in half.sick
    }
    cases |= {p.name: {"family": p.family, "state": "well"} for p in half.well}
    kept = half.patients
    for (patient, policy, seed), result in half.results.items():
        if patient in kept:
            trial = {
                "seed": seed,
                "progress": _finite(result.progress),
                "loss": _finite(result.loss),
                "lost": result.lost,
                "steps": result.steps,
                "actions": result.actions,
                "codes": result.codes,
                "error": result.error,
            }
            trials = cases[patient.name].setdefault("trials", {})
            trials.setdefault(policy.name, []).append(trial)
    lines = ",\n".join(
        f'"{name}": {json.dumps(case, sort_keys=True)}' for name, case in sorted(cases.items())
    )
    dropped, costs = json.dumps(half.dropped), json.dumps(half.costs)
    return f'{{"dropped": {dropped},\n"costs": {costs},\n"cases": {{\n{lines}\n}}}}'


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
