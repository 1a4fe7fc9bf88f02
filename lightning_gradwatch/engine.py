"""The row: gradients -> sample -> history -> detectors -> diagnosis -> actions and reporters.

Neutral: knows torch, not Lightning. `GradWatch` and `GradientWatcher` translate their loops into
these calls, in this order for each optimizer step:

    begin_batch ... add_loss ... before_step  (the optimizer steps)  after_step ... settle
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions.snapshot import Trained
from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.audience import Audience
from lightning_gradwatch.culprit.seeker import Seeker
from lightning_gradwatch.diagnosis import Diagnosis
from lightning_gradwatch.facts import ModelFacts
from lightning_gradwatch.finding import CODES, Finding, Severity
from lightning_gradwatch.guard import Guard
from lightning_gradwatch.hands import Hands
from lightning_gradwatch.history import History
from lightning_gradwatch.layers import Layout
from lightning_gradwatch.parts_state import load_parts, plain, save_parts
from lightning_gradwatch.probe.facts import read_facts
from lightning_gradwatch.probe.probe import Aftermath, Probe, StepContext
from lightning_gradwatch.report import Report
from lightning_gradwatch.reporters.protocol import RunInfo
from lightning_gradwatch.sample import Sample, Update
from lightning_gradwatch.settings import Settings

#: Interventions remembered; older ones are dropped.
MAX_RECORDS = 10_000


class Engine:
    """Watches the training of one module at a time.

    Args:
        settings: Checked arguments.
        detectors: Objects with `update(sample)`.
        actions: Objects with `apply(findings, training)`.
        reporters: Objects with the `Reporter` methods.
    """

    def __init__(
        self,
        settings: Settings,
        detectors: Sequence[Any],
        actions: Sequence[Any],
        reporters: Sequence[Any],
    ) -> None:
        self.settings = settings
        self.detectors = tuple(detectors)
        self.actions = tuple(actions)
        self.guard = Guard()
        self.audience = Audience(reporters, self.guard)
        self.run = RunInfo()
        self._probe: Probe | None = None
        self._module: nn.Module | None = None
        self._divided: torch.optim.Optimizer | None = None
        self._handles: list[RemovableHandle] = []
        self._optimizers: list[torch.optim.Optimizer] = []
        self._hands = Hands()
        self.seeker = Seeker()
        self.reset()

    # ------------------------------------------------------------------ life

    def reset(self) -> None:
        """Forget the run: a new one begins."""
        self.history = History(self.settings.norm_type)
        self.diagnosis = Diagnosis(ModelFacts())
        self.records: deque[ActionRecord] = deque(maxlen=MAX_RECORDS)
        self._counts: dict[int, int] = {}
        self._epochs = 0
        self._update_due: Aftermath | None = None
        self._latest: dict[int, Sample] = {}
        self._held: Sample | None = None
        self.seeker.reset()
        for part in (*self.detectors, *self.actions):
            if hasattr(part, "reset"):
                self.guard.call(part, part.reset, default=None)

    @property
    def wants_batches(self) -> bool:
        """Whether the batches of a step have to be kept until it is made."""
        return self.seeker.wants_batches or self.actions_want_batches

    @property
    def actions_want_batches(self) -> bool:
        """Whether an action has a use for them."""
        return any(getattr(action, "wants_batches", False) for action in self.actions)

    @property
    def attached(self) -> bool:
        """Whether a module is being watched now."""
        return self._probe is not None

    def start(
        self,
        module: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        run: RunInfo,
        hands: Hands,
        reporting: bool = True,
    ) -> None:
        """Attach to a module and open the reporters.

        Args:
            module: The module that is trained.
            optimizers: The raw optimizers, in the loop's order.
            run: What the reporters are told.
            hands: How actions reach the loop.
            reporting: False on ranks other than zero.

        Raises:
            ValueError: `include` and `exclude` leave nothing of a module that has parameters.
        """
        self.stop()
        self.run, self._hands = run, hands
        self.audience.listening = reporting
        self._optimizers = list(optimizers)
        self._handles = [
            optimizer.register_step_post_hook(self._stepped) for optimizer in optimizers
        ]
        probe = Probe(self.settings, lambda error: self.guard.disable("a module hook", error))
        probe.attach(module)
        self._probe, self._module = probe, module
        facts = self.guard.call(
            "reading the model's facts", read_facts, module, optimizers, probe.host,
            default=ModelFacts(),
        )  # fmt: skip
        if not self._counts:  # a resumed run keeps the facts of its first beginning
            self.diagnosis.facts = facts
        for action in self.actions:
            if hasattr(action, "prepare"):
                self.guard.call(action, action.prepare, self._trained(), default=None)
            if hasattr(action, "find_place"):
                self.guard.call(action, action.find_place, hands.folder, default=None)
        self.audience.start(run)
        if not facts.parameters:
            self.audience.findings(self.diagnosis.observe([_nothing_to_watch()], 0))

    def stop(self) -> None:
        """Detach, finish the reporters, keep what was learnt. May be called at any time, twice."""
        probe = self._probe
        if probe is None:
            return
        self.guard.call("the last reading", self.settle, default=None)
        self._probe = None
        for handle in self._handles:
            handle.remove()
        self._handles, self._optimizers, self._hands = [], [], Hands()
        self._module = None
        self._take_back()
        self.guard.call("detaching", probe.detach, default=None)
        report = self.guard.call("the report", self.report, default=None)
        if report is not None:
            self.audience.finish(report)

    def report(self) -> Report:
        """Return the report on the run so far."""
        return Report.build(
            self.history,
            self.diagnosis.findings,
            tuple(self.records),
            epochs=self._epochs,
            config=self.run.config,
            environment=self.run.environment,
            folder=self.run.recording_dir,
        )

    # ------------------------------------------------------------------ one step

    def tell(self, findings: Sequence[Finding], step: int) -> None:
        """Take in findings from outside of the row, such as those from before the first step."""
        self.audience.findings(
            self.guard.call(
                "the diagnosis", self.diagnosis.observe, findings, step, default=[*findings]
            )
        )

    def begin_batch(self, announced: bool = False) -> None:
        """A batch begins: hook the modules if its step is one that is looked into.

        Args:
            announced: Every backward pass of a loss stands between `begin_backward` and
                `end_backward`, so that any other is none of ours.
        """
        probe = self._probe
        if probe is None or not self.guard.works(probe):
            return
        probe.gate.reset(announced)
        count = max(len(self._optimizers), 1)
        if any(self.settings.samples_flow(self._counts.get(i, 0)) for i in range(count)):
            self.guard.call(probe, probe.arm_flow, several=count > 1, default=None)
        else:
            self.guard.call(probe, probe.disarm_flow, default=None)

    def begin_backward(self) -> None:
        """The loop is about to backpropagate a loss."""
        if self._probe is not None:
            self._probe.gate.enter()

    def end_backward(self) -> None:
        """It has done so."""
        if self._probe is not None:
            self._probe.gate.leave()

    def add_loss(self, loss: Tensor, factor: float = 1.0) -> None:
        """A loss is about to be backpropagated; `factor` undoes what the loop divided it by."""
        probe = self._probe
        if probe is not None and self.guard.works(probe):
            self.guard.call(probe, probe.add_loss, loss, factor, default=None)

    def index_of(self, optimizer: torch.optim.Optimizer | None) -> int:
        """Index of the optimizer, by identity."""
        return next((i for i, o in enumerate(self._optimizers) if o is optimizer), 0)

    def before_step(self, context: StepContext, may_change: bool = False) -> None:
        """The optimizer is about to step: read, judge, act.

        Args:
            context: What the loop knows of the step.
            may_change: Others may still change the gradients before they are used.
        """
        probe = self._probe
        if probe is None:
            return
        self._take_back()
        count = self._counts.get(context.index, 0)
        self._counts[context.index] = count + 1
        recorded = count % self.settings.every_n_steps == 0
        updates = self.settings.samples_update(count)
        if not (recorded or updates or self.actions):
            probe.drop_losses()
            return
        with torch.no_grad():
            read = self.guard.call(probe, probe.read, context, default=None)
            findings: list[Finding] = []
            training: Training | None = None
            loss = math.nan
            if read is not None:
                sample, aftermath = read
                self._epochs = sample.epoch + 1
                self._complete(aftermath)
                sample = self._with_update(sample)
                if recorded:
                    self.guard.call(self.history, self.history.append, sample, default=None)
                    self._held = sample
                findings, loss = self._detect(sample, context), sample.loss
                self._latest[sample.optimizer] = sample
            if self.actions:
                # Here and nowhere else, so that a rank whose probe failed keeps no other waiting.
                findings, loss = self._agree(findings, loss, context.step)
            if read is not None:
                training = self._act(context, sample, findings, loss, last=not may_change)
            if training is not None:
                self.guard.call(
                    probe,
                    probe.watch_step,
                    updates=updates and not training.skipped,
                    may_change=may_change,
                    clipped_norm=math.nan if training.skipped else training.global_norm,
                    default=None,
                )

    def _with_update(self, sample: Sample) -> Sample:
        """Hand the latest measured update to the detectors, once."""
        due, self._update_due = self._update_due, None
        if due is None or due.update is None:
            return sample
        if due.layout != sample.layout:
            return sample  # the layout has changed since: its columns mean something else
        return replace(sample, update=due.update)

    def _detect(self, sample: Sample, context: StepContext) -> list[Finding]:
        self.guard.call("the diagnosis", self.diagnosis.see, sample, default=None)
        found: list[Finding] = []
        for detector in self.detectors:
            found += self.guard.call(
                detector, lambda d=detector: list(d.update(sample)), default=[]
            )  # fmt: skip
        if context.replay is not None:
            found = self.guard.call("the replay", self._seek, found, context, default=found)
        self.audience.findings(
            self.guard.call(
                "the diagnosis", self.diagnosis.observe, found, sample.step, default=found
            )
        )
        return found

    def _seek(self, found: list[Finding], context: StepContext) -> list[Finding]:
        """Name who produced a NaN, while the weights are still those that it came from."""
        probe = self._probe
        if probe is None or context.replay is None or not any(f.code == "nonfinite" for f in found):
            return found
        probe.disarm_flow()  # its hooks are not for the replay
        return self.seeker.seek(found, context.replay, context.batch_idx, self.history)

    def _agree(
        self, findings: list[Finding], loss: float, step: int
    ) -> tuple[list[Finding], float]:
        """Add what only other ranks found, and return the mean of all ranks' losses.

        A loss, unlike a gradient, is each rank's own.
        """
        codes = sorted({*CODES, *(c for a in self.actions for c in getattr(a, "on", ()))})
        here = {finding.code for finding in findings}
        *anywhere, total = self._hands.add([*(float(code in here) for code in codes), loss])
        return findings + [
            Finding(code, Severity.WARNING, (), step, step, summary="found on another rank")
            for code, found in zip(codes, anywhere, strict=True)
            if found and code not in here
        ], total / self._hands.ranks

    def _act(
        self,
        context: StepContext,
        sample: Sample,
        findings: list[Finding],
        loss: float,
        last: bool,
    ) -> Training:
        probe = self._probe
        assert probe is not None
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
            record = self.guard.call(action, action.apply, findings, training, default=None)
            if record is not None:
                self.records.append(record)
                self.audience.action(record)
        if self.guard.call("the actions", training.finish, default=False):
            self._divided = context.optimizer
        return training

    def _trained(self, scaler: Any = None) -> Trained | None:
        if self._module is None:
            return None
        return Trained(self._module, self._optimizers, scaler, self._remember, self._recall)

    def _remember(self) -> str:
        return json.dumps(save_parts(self.detectors, self.guard))

    def _recall(self, memory: str) -> None:
        """Let the detectors go on from where they were: what came since has been undone."""
        load_parts(self.detectors, json.loads(memory), self.guard)
        self._update_due = None

    def _stepped(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Post hook of the optimizer: it really stepped (not so under an AMP overflow)."""
        self._take_back()
        self.after_step()

    def _take_back(self) -> None:
        """Remove what `Training.finish` has left with an optimizer: it is for one step."""
        if self._divided is not None:
            vars(self._divided).pop("grad_scale", None)
            self._divided = None

    def after_step(self) -> None:
        """The step was made: measure what it did."""
        probe = self._probe
        if probe is not None and self.guard.works(probe):
            with torch.no_grad():
                self._complete(self.guard.call(probe, probe.after_step, default=None))

    def settle(self) -> None:
        """Complete the latest step now, even if that costs a transfer."""
        probe = self._probe
        if probe is not None and self.guard.works(probe):
            self._complete(self.guard.call(probe, probe.flush, default=None))

    def _complete(self, aftermath: Aftermath | None) -> None:
        if aftermath is None:
            return
        if aftermath.update is not None:
            self._update_due = aftermath
        self.history.settle(
            aftermath.step, aftermath.index, aftermath.clipped_norm, aftermath.update
        )
        held, self._held = self._held, None
        if held is not None:
            complete = replace(held, clipped_norm=aftermath.clipped_norm)
            self._latest[complete.optimizer] = complete
            self.audience.sample(complete)

    def log(self) -> None:
        """The step just made falls on the logging interval: one call for each optimizer."""
        self.settle()
        latest, self._latest = self._latest, {}
        for sample in latest.values():
            self.audience.log(sample)

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to decide as this one would: plain Python values."""
        self.settle()
        due = self._update_due
        return {
            "counts": dict(self._counts),
            "facts": self.diagnosis.facts.to_dict(),
            "diagnosis": plain(self.diagnosis.state_dict()),
            "records": [record.to_dict() for record in self.records],
            "update": None
            if due is None or due.update is None
            else {"layout": due.layout.to_dict(), "numbers": due.update.to_dict()},
            "detectors": save_parts(self.detectors, self.guard),
            "actions": save_parts(self.actions, self.guard),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Take up where `state_dict` left off; parts that do not match start anew."""
        self._counts = {int(k): int(v) for k, v in state["counts"].items()}
        self.diagnosis.facts = ModelFacts.from_dict(state["facts"])
        self.diagnosis.load_state_dict(state["diagnosis"])
        self.records.clear()
        self.records.extend(ActionRecord.from_dict(record) for record in state["records"])
        if state["update"] is not None:
            update = Update.from_dict(state["update"]["numbers"])
            layout = Layout.from_dict(state["update"]["layout"])
            self._update_due = Aftermath(update.step, update.optimizer, layout, update=update)
        load_parts(self.detectors, state["detectors"], self.guard)
        load_parts(self.actions, state["actions"], self.guard)
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles are detached: what is being watched stays with the original."""
        live: dict[str, Any] = {
            "_probe": None,
            "_module": None,
            "_divided": None,
            "_handles": [],
            "_optimizers": [],
            "_hands": Hands(),
        }
        return self.__dict__ | live | {"run": replace(self.run, loggers=())}


def _nothing_to_watch() -> Finding:
    return Finding(
        code="no_gradient",
        severity=Severity.INFO,
        layers=(),
        first_step=0,
        last_step=0,
        summary="The model has no trainable parameter, so there is no gradient to watch.",
        cause="Every parameter has requires_grad=False, or the module owns none.",
        remedies=("Unfreeze a layer: module.requires_grad_(True).",),
    )
