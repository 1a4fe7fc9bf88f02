"""The row: gradients -> sample -> history -> detectors -> diagnosis -> actions and reporters.

Neutral: knows torch, not Lightning. `GradWatch` and `GradientWatcher` translate their loops into
these calls, in this order for each optimizer step:

    begin_batch ... add_loss ... before_step  (the optimizer steps)  after_step ... settle

Where somebody has to decide on the host what becomes of the step, its numbers are waited for. Where
nobody has to, and the parameters are on an accelerator, they come some steps later through a ring:
the same row, in the same order.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions.acting import Acting
from lightning_gradwatch.at_once import AtOnce, Row
from lightning_gradwatch.audience import Audience
from lightning_gradwatch.culprit.seeker import Seeker
from lightning_gradwatch.diagnosis import Diagnosis
from lightning_gradwatch.errors import GradWatchWarning
from lightning_gradwatch.facts import ModelFacts
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.guard import Guard
from lightning_gradwatch.hands import Hands
from lightning_gradwatch.history import History
from lightning_gradwatch.judging import Judge
from lightning_gradwatch.later import Later
from lightning_gradwatch.pace import Pace
from lightning_gradwatch.parts_state import load_parts, save_parts
from lightning_gradwatch.probe.facts import read_facts
from lightning_gradwatch.probe.probe import Probe
from lightning_gradwatch.probe.ring import Ring, door_for
from lightning_gradwatch.probe.sharded import is_sharded
from lightning_gradwatch.probe.step import OpenStep, StepContext
from lightning_gradwatch.report import Report
from lightning_gradwatch.reporters.protocol import RunInfo
from lightning_gradwatch.settings import Settings
from lightning_gradwatch.together import Together


class Engine:
    """Watches the training of one module at a time.

    Args:
        settings: Checked arguments.
        detectors: Objects with `update(sample)`.
        actions: Objects with `apply(findings, training)`.
        reporters: Objects with the `Reporter` methods.

    Attributes:
        settings: What was asked for.
        sampling: The same with the intervals that hold.
        pace: Times what is ours, where there is a budget for it.
    """

    pace: Pace | None = None

    def __init__(
        self,
        settings: Settings,
        detectors: Sequence[Any],
        actions: Sequence[Any],
        reporters: Sequence[Any],
    ) -> None:
        self.settings = self.sampling = settings
        self.guard = Guard()
        self.audience = Audience(reporters, self.guard)
        self.judge = Judge(settings.norm_type, detectors, self.audience, self.guard)
        self.acting = Acting(actions, self.judge, self.audience, self.guard)
        self.run = RunInfo()
        self._probe: Probe | None = None
        self._later: Later | Together | None = None
        self._way: AtOnce | Later | Together
        self._handles: list[RemovableHandle] = []
        self._optimizers: list[torch.optim.Optimizer] = []
        self._tells_steps = True
        self.seeker = Seeker()
        self._counts: dict[int, int] = {}

    # ------------------------------------------------------------------ life

    def reset(self) -> None:
        """Forget the run: a new one begins."""
        self._counts = {}
        self.judge.reset()
        self.acting.reset()
        self.seeker.reset()

    @property
    def detectors(self) -> tuple[Any, ...]:
        """Who judges."""
        return self.judge.detectors

    @property
    def actions(self) -> tuple[Any, ...]:
        """Who acts."""
        return self.acting.actions

    @property
    def history(self) -> History:
        """The recorded steps."""
        self._catch_up()
        return self.judge.history

    @property
    def diagnosis(self) -> Diagnosis:
        """The findings of the run."""
        self._catch_up()
        return self.judge.diagnosis

    @property
    def records(self) -> deque[ActionRecord]:
        """What the actions did."""
        self._catch_up()
        return self.acting.records

    @property
    def wants_batches(self) -> bool:
        """Whether the batches of a step have to be kept until it is made."""
        return self.seeker.wants_batches or self.actions_want_batches

    @property
    def actions_want_batches(self) -> bool:
        """Whether an action has a use for them."""
        return self.acting.wants_batches

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
        untrusted: str = "",
    ) -> None:
        """Attach to a module and open the reporters.

        Args:
            module: The module that is trained.
            optimizers: The raw optimizers, in the loop's order.
            run: What the reporters are told.
            hands: How actions reach the loop.
            reporting: False on ranks other than zero.
            untrusted: Why `.grad` does not hold the gradient; empty: it does.

        Raises:
            ValueError: `include` and `exclude` leave nothing of a module that has parameters.
        """
        self.stop()
        if untrusted:
            said = dict(run.environment) | {"gradients": f"not read: {untrusted}"}
            run = replace(run, environment=said)
        self.run = run
        self.audience.listening = reporting
        self._optimizers = list(optimizers)
        self._handles = [
            optimizer.register_step_post_hook(self._stepped)
            for optimizer in optimizers
            if hasattr(optimizer, "register_step_post_hook")
        ]
        self._tells_steps = len(self._handles) == len(self._optimizers)
        probe = Probe(
            self.settings,
            lambda error: self.guard.disable("a module hook", error),
            trusted=not untrusted,
        )
        probe.attach(module)
        self._probe = probe
        facts = self.guard.call(
            "reading the model's facts", read_facts, module, optimizers, probe.host,
            default=ModelFacts(),
        )  # fmt: skip
        if untrusted:  # what optimizers hold are not the model's own parameters
            facts = replace(facts, left_out=())
        if not self._counts:  # a resumed run keeps the facts of its first beginning
            self.diagnosis.facts = facts
        self.acting.attach(module, optimizers, hands)
        row = Row(probe, self.judge, self.acting, self.seeker, self.guard)
        self._way = self._at_once = AtOnce(row)
        self._later = self.guard.call("the ring", self._later_for, module, row, default=None)
        self.audience.start(run)
        if untrusted:
            if reporting:
                warnings.warn(
                    f"GradWatch: no norms of gradients in this run: {untrusted}. Loss, learning "
                    "rate and what modules show from outside are recorded all the same.",
                    GradWatchWarning,
                    stacklevel=2,
                )
        elif not facts.parameters:
            self.judge.tell([_nothing_to_watch()], 0)

    def _later_for(self, module: nn.Module, row: Row) -> Later | Together | None:
        """Return the way of steps that nobody waits for; None where somebody has to."""
        held = [p for o in self._optimizers for group in o.param_groups for p in group["params"]]
        parameters = (*module.parameters(), *held)
        devices = {parameter.device for parameter in parameters}
        door = door_for(devices) if self.acting.may_act_on_device else None
        if door is not None:
            return Later(row, Ring(door), self._optimizers)
        if self.acting.needs_verdict or any(map(is_sharded, parameters)):
            return None
        return Together(row) if all(device.type == "cpu" for device in devices) else None

    def stop(self, failed: bool = False) -> None:
        """Detach, finish the reporters, keep what was learnt. May be called at any time, twice.

        Args:
            failed: An exception has ended the run: the device may never answer again.
        """
        probe = self._probe
        if probe is None:
            return
        if failed and self._later is not None and self.guard.works(probe):
            self.guard.call("the last reading", self._later.salvage, default=None)
        else:
            self.guard.call("the last reading", self.settle, default=None)
        self._probe = self._later = None
        for handle in self._handles:
            handle.remove()
        self._handles, self._optimizers = [], []
        self.acting.detach()
        self.guard.call("detaching", probe.detach, default=None)
        report = self.guard.call("the report", self.report, default=None)
        if report is not None:
            self.audience.finish(report)

    def report(self) -> Report:
        """Return the report on the run so far; waits for numbers that are under way."""
        self._hear(wait=True)
        return Report.build(
            self.history,
            self.diagnosis.findings,
            tuple(self.records),
            epochs=self.judge.epochs,
            config=self.run.config,
            environment=self.run.environment,
            folder=self.run.recording_dir,
        )

    # ------------------------------------------------------------------ one step

    def tell(self, findings: Sequence[Finding], step: int) -> None:
        """Take in findings from outside of the row, such as those from before the first step."""
        self.judge.tell(findings, step)

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
        for index in range(count):
            if self.sampling.samples_flow(self._counts.get(index, 0)):
                self.guard.call(probe, probe.arm_flow, several=count > 1, default=None)
                return
        if probe.is_armed:
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
        for index, known in enumerate(self._optimizers):
            if known is optimizer:
                return index
        return 0

    def before_step(self, context: StepContext, may_change: bool = False) -> None:
        """The optimizer is about to step: read, judge, act.

        Args:
            context: What the loop knows of the step.
            may_change: Others may still change the gradients before they are used.
        """
        probe = self._probe
        if probe is None:
            return
        self.acting.take_back()
        count = self._counts.get(context.index, 0)
        self._counts[context.index] = count + 1
        recorded = self._records(count)
        updates = self.sampling.samples_update(count)
        if not (recorded or updates or self.actions):
            probe.drop_losses()
            self._hear()
            return
        if self._later is not None and self.acting.fits_device(context):
            self._way = self._later
        else:
            self._hear(wait=True)  # what came before it
            self._way = self._at_once
        with torch.no_grad():
            self._way.step(context, recorded, updates, may_change)
        if not self._tells_steps:  # an optimizer that is not torch's: take the step for made
            self.after_step()

    def _records(self, count: int) -> bool:
        """Whether an optimizer's step number `count` (from 0) belongs to the history."""
        return count % self.sampling.every_n_steps == 0

    def _catch_up(self) -> None:
        """Judge what waits for no device: whoever asks wants to know of every step."""
        if isinstance(self._later, Together):
            self._later.hear(wait=True)

    def _hear(self, wait: bool = False, may_replay: bool = False) -> None:
        """Take in what has come from the device by now; `wait`: all that is under way."""
        if self._later is not None:
            self._later.hear(wait, may_replay)

    # ------------------------------------------------------------------ after the step

    def _stepped(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Post hook of the optimizer: it really stepped (not so under an AMP overflow)."""
        self.acting.take_back()
        self.after_step()

    def after_step(self) -> None:
        """The step was made: measure what it did."""
        probe = self._probe
        if probe is None:
            return
        with torch.no_grad():
            if self.guard.works(probe):
                self.guard.call(probe, lambda: self._bring(probe.after_step()), default=None)
            if not self.guard.works(probe):
                self.guard.call("taking part", probe.collectives.abstain_after, default=None)

    def _bring(self, step: OpenStep | None) -> None:
        """Take in what a step has left behind, in its turn."""
        if step is not None:
            self._way.bring(step)

    def settle(self, may_replay: bool = False) -> None:
        """Complete the latest step now, even if that costs a transfer."""
        probe = self._probe
        if probe is not None and self.guard.works(probe):
            self.guard.call(probe, lambda: self._bring(probe.flush()), default=None)
        if probe is not None:  # what was done is told even if the probe has failed since
            self._hear(wait=True, may_replay=may_replay)

    def log(self) -> None:
        """The step just made falls on the logging interval: one call for each optimizer."""
        self.settle(may_replay=True)
        self.judge.log()

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to decide as this one would: plain Python values."""
        self.settle()
        return self.judge.state_dict() | {
            "counts": dict(self._counts),
            "records": [record.to_dict() for record in self.records],
            "actions": save_parts(self.actions, self.guard),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Take up where `state_dict` left off; parts that do not match start anew."""
        self._counts = {int(k): int(v) for k, v in state["counts"].items()}
        self.judge.load_state_dict(state)
        self.records.clear()
        self.records.extend(ActionRecord.from_dict(record) for record in state["records"])
        load_parts(self.actions, state["actions"], self.guard)
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles are detached: what is being watched stays with the original."""
        self._catch_up()
        live: dict[str, Any] = {"_probe": None, "_later": None, "_handles": [], "_optimizers": []}
        kept = {
            name: value for name, value in self.__dict__.items() if name not in ("_at_once", "_way")
        }
        return kept | live | {"run": replace(self.run, loggers=())}


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
