"""What an action is: anything with `apply`. No base class, no registry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.finding import Finding


@runtime_checkable
class Action(Protocol):
    """Something that may change training, on findings or without any.

    Example:
        >>> class HalveOnSpike:
        ...     def apply(self, findings, training):
        ...         if not any(finding.code == "spike" for finding in findings):
        ...             return None
        ...         change = training.clip_grad_norm(training.global_norm / 2)
        ...         return change and ActionRecord("HalveOnSpike", training.step, "spike", *change)
        >>> isinstance(HalveOnSpike(), Action)
        True
    """

    def apply(self, findings: Sequence[Finding], training: Training) -> ActionRecord | None:
        """Look at a step that is about to be made, and intervene if it is time to.

        Called at every optimizer step, after the detectors and just before the parameter update,
        for each action in the order of the list.

        Args:
            findings: What the detectors said of this very step, on any rank.
            training: The handle through which to intervene, made for this step.

        Returns:
            What was done; None if nothing was. Without an effect, return None.
        """
        ...


@runtime_checkable
class StatefulAction(Action, Protocol):
    """An action that remembers something from step to step.

    The state holds plain Python types only (int, float, str, bool, None, list, dict with string
    keys): checkpoints are loaded with `weights_only=True`.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs in order to decide as an uninterrupted one."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned. May be called before anything else."""
        ...

    def reset(self) -> None:
        """Forget everything: a new run begins."""
        ...
