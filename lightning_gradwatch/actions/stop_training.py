"""Ends a run that has nothing left to win."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.actions.trigger import Trigger
from lightning_gradwatch.errors import check_codes
from lightning_gradwatch.finding import Finding


class StopTraining:
    """Ends the fit cleanly on a finding, with the reason.

    The step at which it happens is still made; then training ends as it does at the end of the
    last epoch, so that loggers, checkpoints and callbacks finish their work. Put `SkipStep` before
    it to keep that last step from spoiling the weights. `Trainer(min_steps=..., min_epochs=...)`
    are honoured: until then the wish is repeated, and recorded, at every step with a finding.

    Args:
        on: Finding codes that end training.

    Raises:
        ValueError: an unknown code; the message lists the choices.

    Example:
        >>> StopTraining(on=("nonfinite",))
        StopTraining(on=('nonfinite',))
    """

    def __init__(self, on: Sequence[str] = ("nonfinite", "exploding")) -> None:
        self.on = check_codes("on", on)
        self._trigger = Trigger(self.on)

    def apply(self, findings: Sequence[Finding], training: Training) -> ActionRecord | None:
        """Ask for the end of training if one of the codes was found on any rank."""
        why = self._trigger(findings, training)
        if why is None:
            return None
        training.stop(f"StopTraining: {why}")
        return ActionRecord(type(self).__name__, training.step, why)

    def __repr__(self) -> str:
        return f"StopTraining(on={self.on})"
