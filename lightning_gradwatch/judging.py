"""From samples to findings: history, detectors, diagnosis, and whoever is told.

Knows no tensor and no loop. Whether a sample comes at the moment of its step or some steps later
makes no difference here, as long as samples and aftermaths come in their order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lightning_gradwatch.audience import Audience
from lightning_gradwatch.diagnosis import Diagnosis
from lightning_gradwatch.facts import ModelFacts
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.guard import Guard
from lightning_gradwatch.history import History
from lightning_gradwatch.layers import Layout
from lightning_gradwatch.parts_state import load_parts, plain, save_parts
from lightning_gradwatch.sample import Sample, Update

if TYPE_CHECKING:
    from lightning_gradwatch.probe.step import Aftermath

#: Improves findings, while it is known where they came from.
Seek = Callable[[list[Finding]], list[Finding]]


class Judge:
    """Takes in what steps looked like, and says what is wrong.

    Args:
        norm_type: The p of the norms.
        detectors: Objects with `update(sample)`.
        audience: Who is told.
        guard: Switches off what fails.

    Attributes:
        history: The recorded steps.
        diagnosis: The findings of the run.
        epochs: Epochs begun.
    """

    def __init__(
        self, norm_type: float, detectors: Sequence[Any], audience: Audience, guard: Guard
    ) -> None:
        self._norm_type = norm_type
        self.detectors = tuple(detectors)
        self._audience = audience
        self._guard = guard
        self.reset()

    def reset(self) -> None:
        """Forget the run: a new one begins."""
        self.history = History(self._norm_type)
        self.diagnosis = Diagnosis(ModelFacts())
        self.epochs = 0
        self._due: tuple[Layout, Update] | None = None
        self._latest: dict[int, Sample] = {}
        self._held: Sample | None = None
        for detector in self.detectors:
            if hasattr(detector, "reset"):
                self._guard.call(detector, detector.reset, default=None)

    def take_in(
        self, sample: Sample, recorded: bool, seek: Seek | None = None
    ) -> tuple[Sample, list[Finding]]:
        """Judge a step.

        Args:
            sample: What it looked like.
            recorded: It belongs to the history.
            seek: Names who produced a NaN; None: nobody can.

        Returns:
            The step, with the aftermath of an earlier one, and what the detectors say of it.
        """
        self.epochs = sample.epoch + 1
        sample = self._with_update(sample)
        if recorded:
            self._guard.call(self.history, self.history.append, sample, default=None)
            self._held = sample
        self._guard.call("the diagnosis", self.diagnosis.see, sample, default=None)
        found: list[Finding] = []
        for detector in self.detectors:
            found += self._guard.call(
                detector, lambda d=detector: list(d.update(sample)), default=[]
            )  # fmt: skip
        if seek is not None:
            found = self._guard.call("the replay", seek, found, default=found)
        self.tell(found, sample.step)
        self._latest[sample.optimizer] = sample
        return sample, found

    def _with_update(self, sample: Sample) -> Sample:
        """Hand the latest measured update to the detectors, once."""
        due, self._due = self._due, None
        if due is None or due[0] != sample.layout:
            return sample  # the layout has changed since: its columns mean something else
        return replace(sample, update=due[1])

    def tell(self, findings: Sequence[Finding], step: int) -> None:
        """Take in findings, of detectors or from outside, and announce what is new."""
        self._audience.findings(
            self._guard.call(
                "the diagnosis", self.diagnosis.observe, findings, step, default=[*findings]
            )
        )

    def complete(self, aftermath: Aftermath | None) -> None:
        """Take in what became known of a step after it was made."""
        if aftermath is None:
            return
        if aftermath.update is not None:
            self._due = aftermath.layout, aftermath.update
        self.history.settle(
            aftermath.step, aftermath.index, aftermath.clipped_norm, aftermath.update
        )
        held, self._held = self._held, None
        if held is not None:
            complete = replace(held, clipped_norm=aftermath.clipped_norm)
            self._latest[complete.optimizer] = complete
            self._audience.sample(complete)

    def log(self) -> None:
        """Let reporters log the latest step of each optimizer, unless they have."""
        latest, self._latest = self._latest, {}
        for sample in latest.values():
            self._audience.log(sample)

    # ------------------------------------------------------------------ state

    def remember(self) -> str:
        """Return what the detectors know, as text."""
        return json.dumps(save_parts(self.detectors, self._guard))

    def recall(self, memory: str) -> None:
        """Let the detectors go on from there: what came since has been undone."""
        load_parts(self.detectors, json.loads(memory), self._guard)
        self._due = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to judge as this one would: plain Python values."""
        due = self._due
        return {
            "facts": self.diagnosis.facts.to_dict(),
            "diagnosis": plain(self.diagnosis.state_dict()),
            "update": None
            if due is None
            else {"layout": due[0].to_dict(), "numbers": due[1].to_dict()},
            "detectors": save_parts(self.detectors, self._guard),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where `state_dict` left off; detectors that do not match start anew."""
        self.diagnosis.facts = ModelFacts.from_dict(state["facts"])
        self.diagnosis.load_state_dict(state["diagnosis"])
        if state["update"] is not None:
            update = Update.from_dict(state["update"]["numbers"])
            self._due = Layout.from_dict(state["update"]["layout"]), update
        load_parts(self.detectors, state["detectors"], self._guard)
