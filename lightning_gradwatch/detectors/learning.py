"""Whether a run learns all the same, whatever its activations look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightning_gradwatch.detectors.course import LossCourse
from lightning_gradwatch.detectors.inside import FITTED, output_force
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.sample import Sample

#: Share of the loss that has gone from a run that seems to learn,
_FALLEN = 0.9
#: and the share that goes within 32 steps from one that does.
_FALLING = 0.5


class Learning:
    """Follows loss and outputs of every optimizer, and lowers the voice of findings on it."""

    def __init__(self) -> None:
        self._courses: dict[int, LossCourse] = {}
        self._learns: dict[int, bool] = {}

    def see(self, sample: Sample) -> None:
        """Add the loss of a step; decide anew if its modules are hooked."""
        course = self._courses.setdefault(sample.optimizer, LossCourse())
        course.push(sample.loss)
        if sample.flow is not None and sample.flow.modules is not None:
            force = output_force(sample, sample.flow.modules)
            # A loss that began far above that of knowing nothing has fallen far as well.
            far = not course.signed and course.best <= (1 - _FALLEN) * course.top
            fitted = force >= FITTED or (force >= FITTED / 2 and far)
            self._learns[sample.optimizer] = fitted or course.falling >= _FALLING

    def temper(self, finding: Finding, optimizer: int) -> Finding:
        """Return the finding, only as INFO if the run learns all the same."""
        learns = self._learns.get(optimizer, False)
        return replace(finding, severity=Severity.INFO) if learns else finding

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python types only."""
        return {
            "courses": {str(k): v.to_dict() for k, v in self._courses.items()},
            "learns": {str(k): v for k, v in self._learns.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Learning:
        """Rebuild what `to_dict` returned."""
        learning = cls()
        learning._courses = {int(k): LossCourse.from_dict(v) for k, v in data["courses"].items()}
        learning._learns = {int(k): bool(v) for k, v in data["learns"].items()}
        return learning
