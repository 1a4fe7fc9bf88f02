"""Lets the actions have their say in every step, on the host or on the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions.on_device import DeviceTraining
from lightning_gradwatch.actions.pending import Ahead, Outcome, Seen, Setup, acts_on_device
from lightning_gradwatch.actions.snapshot import Trained
from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.audience import Audience
from lightning_gradwatch.finding import CODES, Finding, Severity
from lightning_gradwatch.guard import Guard
from lightning_gradwatch.hands import Hands
from lightning_gradwatch.judging import Judge
from lightning_gradwatch.probe.probe import Probe
from lightning_gradwatch.probe.sharded import OtherRankFailed
from lightning_gradwatch.probe.step import StepContext
from lightning_gradwatch.probe.taken import Taken
from lightning_gradwatch.sample import Floats, Sample

#: Interventions remembered; older ones are dropped.
MAX_RECORDS = 10_000


class Acting:
    """The actions of one engine, in their order.

    Args:
        actions: Objects with `apply(findings, training)`.
        judge: Whose memory a rollback winds back.
        audience: Who is told what was done.
        guard: Switches off an action that fails.

    Attributes:
        records: What was done.
    """

    def __init__(
        self, actions: Sequence[Any], judge: Judge, audience: Audience, guard: Guard
    ) -> None:
        self.actions = tuple(actions)
        self._judge = judge
        self._audience = audience
        self._guard = guard
        self.records: deque[ActionRecord] = deque(maxlen=MAX_RECORDS)
        self._detach()

    def _detach(self) -> None:
        self._module: nn.Module | None = None
        self._optimizers: Sequence[torch.optim.Optimizer] = ()
        self._hands = Hands()
        self._left: tuple[torch.optim.Optimizer | None, tuple[str, ...]] = (None, ())

    def __getstate__(self) -> dict[str, Any]:
        """Copies are detached: the module and its optimizers stay with the original."""
        nobody = {"_module": None, "_optimizers": (), "_hands": Hands(), "_left": (None, ())}
        return self.__dict__ | nobody

    def reset(self) -> None:
        """Forget the run: a new one begins."""
        self.records.clear()
        for action in self.actions:
            if hasattr(action, "reset"):
                self._guard.call(action, action.reset, default=None)

    @property
    def wants_batches(self) -> bool:
        """Whether an action has a use for the batches of a step."""
        return any(getattr(action, "wants_batches", False) for action in self.actions)

    @property
    def may_act_on_device(self) -> bool:
        """Whether every action knows how to leave its decision to the device."""
        return all(map(acts_on_device, self.actions))

    @property
    def needs_verdict(self) -> bool:
        """Whether any action decides by what was found, and not by the numbers alone."""
        return not all(acts_on_device(a) and not hasattr(a, "fits_device") for a in self.actions)

    def fits_device(self, context: StepContext) -> bool:
        """Whether every action leaves the decision on this step to the device."""
        if not self.actions:
            return True
        setup = Setup(context.optimizer, context.scaler, self._hands.ranks, self._judge.detectors)
        return all(
            self._guard.call(action, action.fits_device, setup, default=False)
            for action in self.actions
            if hasattr(action, "fits_device")
        )

    def attach(
        self, module: nn.Module, optimizers: Sequence[torch.optim.Optimizer], hands: Hands
    ) -> None:
        """Prepare for the training of a module."""
        self._module, self._optimizers, self._hands = module, optimizers, hands
        for action in self.actions:
            if hasattr(action, "prepare"):
                self._guard.call(action, action.prepare, self._trained(), default=None)
            if hasattr(action, "find_place"):
                self._guard.call(action, action.find_place, hands.folder, default=None)

    def detach(self) -> None:
        """Let go of the module and of what was left with its optimizers."""
        self.take_back()
        self._detach()

    # ------------------------------------------------------------------ on the host

    def agree(
        self, findings: list[Finding], loss: float, step: int, probe: Probe
    ) -> tuple[list[Finding], float]:
        """Add what only other ranks found, and return the mean of all ranks' losses.

        A loss, unlike a gradient, is each rank's own. What has failed on any rank is switched off
        on all: weights would part for good if one of them clipped and another did not.
        """
        codes = sorted({*CODES, *(c for a in self.actions for c in getattr(a, "on", ()))})
        here = {finding.code for finding in findings}
        parts = (*self.actions, probe)
        broken = [float(not self._guard.works(part)) for part in parts]
        *anywhere, total = self._hands.add([*(float(c in here) for c in codes), *broken, loss])
        for part, count in zip(parts, anywhere[len(codes) :], strict=True):
            if count:
                self._guard.disable(part, OtherRankFailed("it failed on another rank"))
        return findings + [
            Finding(code, Severity.WARNING, (), step, step, summary="found on another rank")
            for code, found in zip(codes, anywhere[: len(codes)], strict=True)
            if found and code not in here
        ], total / self._hands.ranks

    def act(
        self,
        context: StepContext,
        probe: Probe,
        sample: Sample,
        findings: list[Finding],
        loss: float,
        last: bool,
    ) -> Training:
        """Let every action look at a step and change it.

        Args:
            context: The step.
            probe: Knows its gradients.
            sample: What it looks like.
            findings: What was found, on any rank.
            loss: Mean of all ranks' losses.
            last: Nobody changes or reads the gradients afterwards.
        """
        training = Training(
            sample,
            context.optimizer,
            lambda: probe.parameters.named_gradients(context.optimizer),
            schedulers=self._hands.schedulers,
            scaler=context.scaler,
            stop=self._hands.stop,
            agree=self._hands.agree,
            loss=loss,
            trained=self._trained(context.scaler),
            batches=context.kept,
            folder=self._hands.folder,
            rank=self._hands.rank,
            last=last,
        )
        for action in self.actions:
            record = self._guard.call(action, action.apply, findings, training, default=None)
            if record is not None:
                self._tell(record)
        if self._guard.call("the actions", training.finish, default=False):
            self._left = context.optimizer, ("grad_scale",)
        return training

    def _tell(self, record: ActionRecord) -> None:
        self.records.append(record)
        self._audience.action(record)

    def _trained(self, scaler: Any = None) -> Trained | None:
        if self._module is None:
            return None
        judge = self._judge
        return Trained(self._module, self._optimizers, scaler, judge.remember, judge.recall)

    # ------------------------------------------------------------------ on the device

    def act_ahead(self, context: StepContext, probe: Probe, taken: Taken, last: bool) -> Ahead:
        """Let every action change a step whose numbers nobody has seen yet.

        Args:
            context: The step.
            probe: Knows its gradients.
            taken: What it looks like, on the device.
            last: Nobody changes or reads the gradients afterwards.
        """
        norm = taken.total if self.actions else None
        if norm is None:  # there is no gradient
            return Ahead()
        training = DeviceTraining(
            norm,
            taken.norm_type,
            context.optimizer,
            lambda: [p for _, p in probe.parameters.named_gradients(context.optimizer)],
            total=lambda norm_type: probe.total(context, norm_type),
            scaler=context.scaler,
            last=last,
            broken=taken.broken,
        )
        pending = []
        for action in self.actions:
            made = self._guard.call(action, action.on_device, training, default=None)
            if made is not None:
                pending.append((action, made))
        nothing: tuple[str, ...] = ()
        left = self._guard.call("the actions", training.finish, default=nothing)
        if training.skipped is not None:
            taken.step.fine = torch.logical_not(training.skipped)
        if left:
            self._left = context.optimizer, left
        return Ahead(pending)

    def settle(
        self, ahead: Ahead, sample: Sample, findings: Sequence[Finding], fetched: Sequence[Floats]
    ) -> Outcome:
        """Tell what the changes of a step have come to; return how they left it.

        Args:
            ahead: What `act_ahead` returned.
            sample: What the step looked like.
            findings: What the detectors say of it.
            fetched: `ahead.tensors`, on the host.
        """
        seen = Seen(sample, findings, self._hands.stop)
        records, outcome = ahead.settle(seen, fetched)
        for record in records:
            self._tell(record)
        return outcome

    def take_back(self) -> None:
        """Remove what was left with an optimizer: it is for one step."""
        optimizer, names = self._left
        if optimizer is not None:
            for name in names:
                vars(optimizer).pop(name, None)
            self._left = (None, ())
