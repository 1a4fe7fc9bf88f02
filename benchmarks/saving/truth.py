"""Which candidates are dying, which are well, and which of the dying could be saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.saving.patients import Patient
from benchmarks.saving.policies import FIXED, NONE, Policy
from benchmarks.saving.trial import Result

#: As in the zoo: a run with this much progress has learnt its task, one with less than the other
#: has not; between, nobody can say.
SUCCEEDED, FAILED = 0.7, 0.4

#: Further seeds under which a verdict has to be the same.
SEEDS = (0, 10_000, 20_000)

#: A trial: who, under which policy, with which seed.
Key = tuple[Patient, Policy, int]


def seeds_of(patient: Patient) -> list[int]:
    """Return the seeds of a patient, its own first."""
    return [patient.config.seed + more for more in SEEDS]


def needed(patient: Patient) -> list[Key]:
    """Return the trials that decide what a candidate is."""
    keys = [(patient, NONE, seed) for seed in seeds_of(patient)]
    if patient.healthy_twin != patient:
        keys.append((patient.healthy_twin, NONE, patient.config.seed))
    return keys


def judge(patient: Patient, results: Mapping[Key, Result]) -> str:
    """Return "well", "dying", or why the candidate is dropped."""
    untreated = [results[patient, NONE, seed].progress for seed in seeds_of(patient)]
    if all(p >= SUCCEEDED for p in untreated):
        return "well"
    if any(p > FAILED for p in untreated):  # a NaN is no progress
        return "differs with the seed, or in between"
    if patient.healthy_twin == patient:
        return "fails with nothing wrong"
    twin = results[patient.healthy_twin, NONE, patient.config.seed]
    return "dying" if twin.progress >= SUCCEEDED else "the twin fails too"


@dataclass(frozen=True)
class Dying:
    """A dying run, and what would have saved it.

    Attributes:
        patient: The run.
        saviours: The fixed settings that, applied from the start, bring it to success, best first.
        best: Loss under the best of them; that of the healthy twin where there is none.
    """

    patient: Patient
    saviours: tuple[str, ...]
    best: float


def dying(patients: Sequence[Patient], results: Mapping[Key, Result]) -> list[Dying]:
    """Say of each dying run what fixed settings save it."""
    found = []
    for patient in patients:
        seed = patient.config.seed
        saved = {
            policy.name: result.loss
            for policy in FIXED
            if (result := results[patient, policy, seed]).progress >= SUCCEEDED
        }
        ranked = tuple(sorted(saved, key=lambda name: saved[name]))
        twin = results[patient.healthy_twin, NONE, seed]
        found.append(Dying(patient, ranked, saved[ranked[0]] if ranked else twin.loss))
    return found
