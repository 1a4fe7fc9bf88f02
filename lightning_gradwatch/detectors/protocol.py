"""What a detector is: anything with `update`. No base class, no registry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from lightning_gradwatch.finding import Finding
from lightning_gradwatch.sample import Sample


@runtime_checkable
class Detector(Protocol):
    """Something that looks at every sample and says what is wrong with it.

    Example:
        >>> from lightning_gradwatch.finding import Severity
        >>> class LargeHead:
        ...     def update(self, sample):
        ...         norm = sample.layer_grad_norm[-1]
        ...         if norm > 10:
        ...             yield Finding("my.large_head", Severity.INFO, (sample.layout.layers[-1],),
        ...                           sample.step, sample.step, evidence={"norm": norm})
        >>> isinstance(LargeHead(), Detector)
        True
    """

    def update(self, sample: Sample) -> Iterable[Finding]:
        """Take in one optimizer step; steps come in their order, each once.

        Where an action waits for the verdict, the step is about to be made. Elsewhere it may have
        been made a moment ago: up to 16 steps on the CPU, as long as the device takes on CUDA.

        Args:
            sample: Its numbers. Non-finite ones come like any other.

        Returns:
            One finding for every symptom that is present at this very step, with `count=1` and
            `first_step == last_step == sample.step`. Merging over the run is not the detector's
            work; `cause` and `remedies` may be left empty for the codes that are built in.
        """
        ...


@runtime_checkable
class StatefulDetector(Detector, Protocol):
    """A detector that remembers something from step to step.

    The state holds plain Python types only (int, float, str, bool, None, list, dict with string
    keys): checkpoints are loaded with `weights_only=True`.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs in order to decide as an uninterrupted one."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        ...

    def reset(self) -> None:
        """Forget everything: a new run begins."""
        ...
