"""How many of the dying a policy saves, how many of the well it harms, and at what price."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.saving.patients import Patient
from benchmarks.saving.policies import NONE, Policy
from benchmarks.saving.trial import Result
from benchmarks.saving.truth import SUCCEEDED, Dying, Key, seeds_of

#: A loss so much higher, relative to the other and in shares of the loss of the best constant
#: predictor, is another loss: two runs that differ in one rounding differ by less.
WORSE, VISIBLE = 1.1, 0.01

#: The most of a run's steps that a rescue may cost.
AFFORDABLE = 0.1


def is_worse(loss: float, than: float) -> bool:
    """Whether a loss is higher by more than a tenth, and visibly so."""
    return not loss <= max(WORSE * than, than + VISIBLE)


@dataclass
class Score:
    """One policy.

    Attributes:
        policy: Which.
        saved: Dying runs it saved, of those that a fixed setting saves.
        missed: Those it did not.
        beyond: Dying runs it saved that no fixed setting saves.
        hopeless: Those that neither it nor any fixed setting saves.
        advised: How many of the missed and hopeless have a finding with remedies.
        harmed: Runs that were well.
        unharmed: The others.
        refused: Runs that were well, and with which Lightning does not allow this setting.
        quiet: Trials of runs that were well in which no action intervened.
        identical: Of those, in how many every bit of the weights is that of the run without.
        lost: Share of its steps that a saved run lost; an entry for each of `saved`.
        loss: Loss of a saved run over that with the best fixed setting.
        close: Saved runs whose loss is not visibly more than a tenth above that.
    """

    policy: Policy
    saved: list[Patient] = field(default_factory=list)
    missed: list[Patient] = field(default_factory=list)
    beyond: list[Patient] = field(default_factory=list)
    hopeless: list[Patient] = field(default_factory=list)
    advised: int = 0
    harmed: list[Patient] = field(default_factory=list)
    unharmed: list[Patient] = field(default_factory=list)
    refused: list[Patient] = field(default_factory=list)
    quiet: int = 0
    identical: int = 0
    lost: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    close: int = 0

    @property
    def share_saved(self) -> float:
        """Of the runs that a fixed setting saves."""
        return _share(len(self.saved), len(self.missed))

    @property
    def share_harmed(self) -> float:
        """Of the runs that were well."""
        return _share(len(self.harmed), len(self.unharmed))

    @property
    def affordable(self) -> int:
        """How many of the saved runs lost at most a tenth of their steps."""
        return sum(share <= AFFORDABLE for share in self.lost)


def _share(some: int, others: int) -> float:
    return some / (some + others) if some + others else math.nan


def score(
    policy: Policy, sick: Sequence[Dying], well: Sequence[Patient], results: Mapping[Key, Result]
) -> Score:
    """Score one policy."""
    found = Score(policy)
    for case in sick:
        key = (case.patient, policy, case.patient.config.seed)
        if key in results:
            _treat(found, case, results[key])
    for patient in well:
        _watch(found, patient, results)
    return found


def _treat(found: Score, case: Dying, result: Result) -> None:
    alive = result.progress >= SUCCEEDED
    if not alive:
        (found.missed if case.saviours else found.hopeless).append(case.patient)
        found.advised += result.advised
        return
    if not case.saviours:
        found.beyond.append(case.patient)
        return
    found.saved.append(case.patient)
    found.lost.append(result.lost / case.patient.config.steps)
    found.loss.append(result.loss / case.best if case.best > 0 else math.nan)
    found.close += not is_worse(result.loss, case.best)


def _watch(found: Score, patient: Patient, results: Mapping[Key, Result]) -> None:
    pairs = [
        (results[patient, found.policy, seed], results[patient, NONE, seed])
        for seed in seeds_of(patient)
        if (patient, found.policy, seed) in results
    ]
    if all(mine.error.startswith("MisconfigurationException") for mine, _ in pairs):
        found.refused.append(patient)
        return
    if found.policy.actions:
        quiet = [(mine, plain) for mine, plain in pairs if not mine.actions]
        found.quiet += len(quiet)
        found.identical += sum(mine.weights == plain.weights for mine, plain in quiet)
    (found.harmed if harms(pairs) else found.unharmed).append(patient)


def is_higher(results: Mapping[Key, Result], patient: Patient, policy: Policy) -> bool:
    """Whether a run that is well ends higher with its own seed, so that further ones are needed."""
    seed = patient.config.seed
    return not results[patient, policy, seed].loss <= results[patient, NONE, seed].loss


def harms(pairs: Sequence[tuple[Result, Result]]) -> bool:
    """Whether a run that is well is not so any more, or ends with a higher loss on every seed.

    Args:
        pairs: With the policy and without, by seed.
    """
    if any(not mine.progress >= SUCCEEDED for mine, _ in pairs):
        return True
    means = [statistics.fmean(r.loss for r in side) for side in zip(*pairs, strict=True)]
    return all(mine.loss > plain.loss for mine, plain in pairs) and is_worse(*means)
