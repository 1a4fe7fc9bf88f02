"""Leaves out a step that would spoil the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions.kept_buffers import KeptBuffers
from lightning_gradwatch.actions.on_device import DeviceTraining
from lightning_gradwatch.actions.pending import Outcome, Pending, Seen, Setup, can_skip
from lightning_gradwatch.actions.snapshot import Trained
from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.actions.trigger import Trigger, in_words
from lightning_gradwatch.detectors.nonfinite import NonFiniteGradient
from lightning_gradwatch.errors import check_codes, check_int
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.probe.scaler import is_active
from lightning_gradwatch.sample import Floats


class SkipStep:
    """Leaves weights, moments, step counters and weight decay untouched for a step with a finding.

    One NaN in a gradient turns every weight it reaches into NaN, and the moments of Adam with it,
    for ever. Skipped, the run goes on with the next batch as if this one had not been drawn; the
    buffers that its forward pass changed (running statistics of BatchNorm) are put back as well.
    The learning rate schedule and `global_step` advance all the same, as they do under AMP. A loss
    of NaN or Inf alone skips nothing: where all gradients are finite, the step harms no weight.

    Skipping for ever would hide a dead run: the `max_consecutive`-th skip in a row also ends
    training, with the reason, and with the last good weights in place. Overflows under a gradient
    scaler are the scaler's own business and are neither skipped nor counted; but where the loss
    itself is not finite, buffers are put back.

    Args:
        on: Finding codes that skip the step.
        max_consecutive: How many steps in a row (of one optimizer) may be skipped, >= 1, before
            training is stopped.

    Raises:
        TypeError: `max_consecutive` is not an int.
        ValueError: an unknown code, or `max_consecutive` below 1.

    Example:
        >>> SkipStep()
        SkipStep(on=('nonfinite',), max_consecutive=10)
    """

    def __init__(self, on: Sequence[str] = ("nonfinite",), max_consecutive: int = 10) -> None:
        self.on = check_codes("on", on)
        self.max_consecutive = check_int("max_consecutive", max_consecutive, at_least=1)
        self._trigger = Trigger(self.on)
        self._in_a_row: dict[int, int] = {}
        self._buffers: KeptBuffers | None = None

    def prepare(self, trained: Trained) -> None:
        """Keep the buffers as they are before the first batch."""
        self._buffers = KeptBuffers(trained.module)

    def apply(self, findings: Sequence[Finding], training: Training) -> ActionRecord | None:
        """Skip this step if one of the codes was found on any rank."""
        optimizer = training.sample.optimizer
        # Asked on every rank alike: the codes of the findings have been agreed on.
        if "nonfinite" in self.on and any(f.code == "nonfinite" for f in findings):
            harmless = ("nonfinite",) if training.only_loss_is_nonfinite() else ()
            findings = [f for f in findings if f.code not in harmless]
        why = self._trigger(findings, training)
        if training.sample.amp_overflow:
            return self._mend(findings, training)
        if why is None:
            self._in_a_row.pop(optimizer, None)
            if self._buffers is not None and not training.skipped:
                self._buffers.keep()
            return None
        before = training.global_norm
        training.skip_step()
        if self._buffers is not None:
            self._buffers.put_back()
        why = self._count(optimizer, why, training.stop)
        return ActionRecord(type(self).__name__, training.step, why, before, 0.0)

    def fits_device(self, setup: Setup) -> bool:
        """Whether NaN and Inf alone decide on the step, and the optimizer can leave it out itself.

        A process cannot tell by itself what another one has found, and a scaler has its own way.
        """
        codes = self.on == ("nonfinite",)
        ours = all(type(d).__module__.startswith("lightning_gradwatch.") for d in setup.detectors)
        judged = any(type(d) is NonFiniteGradient for d in setup.detectors)
        alone = setup.ranks == 1 and not is_active(setup.scaler)
        return codes and ours and judged and alone and can_skip(setup.optimizer)

    def on_device(self, training: DeviceTraining) -> Pending | None:
        """Do the same without a look at the numbers.

        The record follows when they are known, and so does the end of training after
        `max_consecutive` skips in a row: steps that are broken as well are left out until then.
        """
        skipped = training.skip_broken()
        if self._buffers is not None:
            self._buffers.decide(skipped)
        return Pending([skipped], self._settle)

    def _settle(self, seen: Seen, norm: float, numbers: list[Floats]) -> Outcome:
        optimizer = seen.sample.optimizer
        if not numbers[0][0]:
            self._in_a_row.pop(optimizer, None)
            return Outcome(norm)
        found = next((f for f in seen.findings if f.code in self.on), None)
        why = self._count(optimizer, "nonfinite" if found is None else in_words(found), seen.stop)
        record = ActionRecord(type(self).__name__, seen.sample.step, why, norm, 0.0)
        return Outcome(0.0, record, skipped=True)

    def _count(self, optimizer: int, why: str, stop: Callable[[str], None]) -> str:
        """Count a skip; after too many, stop, and say so."""
        count = self._in_a_row[optimizer] = self._in_a_row.get(optimizer, 0) + 1
        if count >= self.max_consecutive:
            why = f"{why}; {count} steps skipped in a row (max_consecutive): training stops"
            stop(f"SkipStep: {why}")
        return why

    def _mend(self, findings: Sequence[Finding], training: Training) -> ActionRecord | None:
        """Put the buffers back after a step that the scaler skips, if it was no mere overflow."""
        found = [f for f in findings if f.code in self.on]
        if not found or self._buffers is None or not self._buffers.put_back():
            return None
        why = f"{in_words(found[0])} The scaler skips the step; buffers are put back"
        return ActionRecord(type(self).__name__, training.step, why)

    def __getstate__(self) -> dict[str, Any]:
        """Copies have no module to keep buffers of, until their own fit begins."""
        return self.__dict__ | {"_buffers": None}

    def state_dict(self) -> dict[str, Any]:
        """Return the skips in a row, by index of the optimizer."""
        return {"in_a_row": {str(index): n for index, n in self._in_a_row.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._in_a_row = {int(index): int(n) for index, n in state_dict["in_a_row"].items()}

    def reset(self) -> None:
        """Forget the skips in a row."""
        self._in_a_row.clear()
        self._buffers = None

    def __repr__(self) -> str:
        return f"SkipStep(on={self.on}, max_consecutive={self.max_consecutive})"
