"""`Diagnosis`: merges what detectors say at single steps into statements about the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from lightning_gradwatch.detectors.forward import read_forward
from lightning_gradwatch.diagnosis.case import Case
from lightning_gradwatch.diagnosis.causes import cause_of
from lightning_gradwatch.diagnosis.merging import key_of, kind_of, merge
from lightning_gradwatch.diagnosis.remedies import remedies_for
from lightning_gradwatch.facts import ModelFacts
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.sample import Sample

#: At the same step, what causes comes before what it causes.
_ORDER = {"exploding": 0, "nonfinite": 1, "dead_units": 2, "saturated": 3, "vanishing": 4}
#: Symptoms that say nothing of their own where one of these is there, or was there before.
_EXPLAINED_BY = {
    "stalled": {"exploding", "nonfinite", "vanishing", "dead_units", "saturated", "oscillating"},
    "settled": {"exploding", "nonfinite", "vanishing", "dead_units", "saturated"},
}
_EXPLAINED_AFTER = {"vanishing": {"exploding"}, "oscillating": {"exploding"}}
#: Output force of a first output that is far smaller than its target.
_FEEBLE = 0.1
#: Steps within which a spike and an explosion are one event.
_NEAR = 10


class Diagnosis:
    """Findings of a run, merged, explained, and told once.

    A symptom that goes on is one finding with a span of steps; a spike that turned into an
    explosion is part of it, and what an explosion leaves behind names it as its cause. Cause and
    remedies that a detector gave itself are kept.

    Args:
        facts: What is known of the model; may be set later.

    Attributes:
        facts: The same.

    Example:
        >>> diagnosis = Diagnosis(ModelFacts(optimizers=("SGD",), learning_rates=(0.5,)))
        >>> evidence = {"norm_growth": 900.0, "step_length": 40.0}
        >>> for step in (7, 8):
        ...     found = Finding("exploding", Severity.ERROR, (), step, step, evidence=evidence)
        ...     print([f.code for f in diagnosis.observe([found], step)])
        ['exploding']
        []
        >>> [(f.first_step, f.last_step, f.count) for f in diagnosis.findings]
        [(7, 8, 2)]
        >>> diagnosis.findings[0].remedies[0]
        'Lower the learning rate: lr=0.005.'
    """

    def __init__(self, facts: ModelFacts) -> None:
        self.facts = facts
        self._has_seen = False
        self._merged: dict[str, Finding] = {}
        #: Keys of findings whose cause and remedies the detector gave itself.
        self._explained: set[str] = set()
        #: By optimizer, the spikes of late: first and last step, and what was known before them.
        self._spikes: dict[str, tuple[int, int, Finding | None]] = {}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Findings merged over the run, in order of first step."""
        found = self._merged.values()
        return tuple(sorted((f for f in found if not self._is_explained(f)), key=_by_onset))

    @property
    def healthy(self) -> bool:
        """True if nothing of severity WARNING or higher was found."""
        return all(found.severity < Severity.WARNING for found in self._merged.values())

    def _is_explained(self, finding: Finding) -> bool:
        """Whether another illness of the same optimizer accounts for this symptom."""
        symptom = "settled" if "settled" in finding.evidence else finding.code
        causes = _EXPLAINED_BY.get(symptom, set())
        earlier = _EXPLAINED_AFTER.get(finding.code, set())
        return any(
            (
                other.code in causes
                or (other.code in earlier and other.first_step <= finding.first_step)
            )
            and other.severity >= Severity.WARNING
            and _group(other) == _group(finding)
            for other in self._merged.values()
        ) or any(
            # Optimizers that share a loss share an explosion: the first one is the cause.
            other.code == finding.code == "exploding"
            and _group(other) != _group(finding)
            and 0 < finding.first_step - other.first_step <= _NEAR
            for other in self._merged.values()
        )

    def see(self, sample: Sample) -> None:
        """Learn from a sample what the model is like: inputs, targets, functions it calls."""
        modules = sample.flow.modules if sample.flow is not None else None
        if modules is not None and not self._has_seen:
            self._has_seen = True
            self.facts = self.facts.seen(modules)
            reading = read_forward(sample)
            # Outputs of an untrained model that are not small beside its targets have more force.
            if reading is not None and 0 < reading.force < _FEEBLE:
                self.facts = replace(self.facts, target_size=reading.output / reading.force)

    def observe(self, findings: Iterable[Finding], step: int) -> list[Finding]:
        """Take in what the detectors said of one step.

        Args:
            findings: Their findings, in any order.
            step: The step.

        Returns:
            What is to be announced, merged: findings that are new, or have become more severe.
        """
        found = sorted(findings, key=lambda f: _ORDER.get(f.code, len(_ORDER)))
        if not found:
            return []
        exploding = {_group(f) for f in found if f.code == "exploding"}
        return [
            told
            for finding in found
            if not (finding.code == "spike" and _group(finding) in exploding)
            and (told := self._take(finding)) is not None
        ]

    def _take(self, finding: Finding) -> Finding | None:
        key = key_of(finding)
        if finding.code == "spike":
            self._note_spike(key, finding)
        elif finding.code == "exploding":
            finding = self._swallow_spikes(finding)
        known = self._merged.get(key)
        if known is None and (finding.cause or finding.remedies):
            self._explained.add(key)
        merged = finding if known is None else merge(known, finding)
        if known is None or merged.evidence is not known.evidence or merged.layers != known.layers:
            merged = self._explain(key, merged)
        self._merged[key] = merged
        if self._is_explained(merged):
            return None
        return merged if known is None or merged.severity > known.severity else None

    def _explain(self, key: str, finding: Finding) -> Finding:
        if key in self._explained:
            return finding
        earlier: dict[str, Finding] = {}
        for other in self.findings:
            if other.code != finding.code:
                earlier.setdefault(other.code, other)
        case, kind = Case(finding, self.facts, earlier), kind_of(finding)
        return replace(finding, cause=cause_of(case, kind), remedies=remedies_for(case, kind))

    # ------------------------------------------------------------------ spikes

    def _note_spike(self, key: str, finding: Finding) -> None:
        group, step = _group(finding), finding.first_step
        first, last, before = self._spikes.get(group, (step, step - _NEAR - 1, None))
        if step - last > _NEAR:
            first, before = step, self._merged.get(key)
        self._spikes[group] = (first, step, before)

    def _swallow_spikes(self, finding: Finding) -> Finding:
        """Count the spikes that led up to an explosion as its beginning."""
        first, last, before = self._spikes.pop(_group(finding), (0, -1, None))
        if last < 0 or finding.first_step - last > _NEAR:
            return finding
        key = f"spike {_group(finding)}"
        swallowed = self._merged[key].count - (0 if before is None else before.count)
        if before is None:
            del self._merged[key]
        else:
            self._merged[key] = before
        return replace(finding, first_step=first, count=finding.count + swallowed)

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return the findings so far, as plain Python values."""
        return {
            "has_seen": self._has_seen,
            "merged": {key: found.to_dict() for key, found in self._merged.items()},
            "explained": sorted(self._explained),
            "spikes": {
                group: [first, last, None if before is None else before.to_dict()]
                for group, (first, last, before) in self._spikes.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._has_seen = bool(state.get("has_seen", False))
        self._merged = {key: Finding.from_dict(found) for key, found in state["merged"].items()}
        self._explained = set(state["explained"])
        self._spikes = {
            group: (int(first), int(last), None if before is None else Finding.from_dict(before))
            for group, (first, last, before) in state["spikes"].items()
        }


def _group(finding: Finding) -> str:
    """The optimizer a finding belongs to, as it stands in its key."""
    return str(int(finding.evidence.get("optimizer", 0)))


def _by_onset(finding: Finding) -> tuple[int, int]:
    return finding.first_step, _ORDER.get(finding.code, len(_ORDER))
