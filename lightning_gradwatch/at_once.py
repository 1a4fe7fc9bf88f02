"""Steps on which the host decides: their numbers are waited for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions.acting import Acting
from lightning_gradwatch.culprit.seeker import Seeker
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.guard import Guard
from lightning_gradwatch.judging import Judge
from lightning_gradwatch.probe.probe import Probe
from lightning_gradwatch.probe.step import OpenStep, StepContext
from lightning_gradwatch.sample import Sample


@dataclass(frozen=True)
class Row:
    """Everyone whom a step passes.

    Attributes:
        probe: Measures it.
        judge: Says what is wrong with it.
        acting: Changes it.
        seeker: Names who made a NaN.
        guard: Switches off what fails.
    """

    probe: Probe
    judge: Judge
    acting: Acting
    seeker: Seeker
    guard: Guard


class AtOnce:
    """Measures, judges and acts before the step is made.

    Args:
        row: Everyone whom a step passes.
    """

    def __init__(self, row: Row) -> None:
        self._row = row

    def step(self, context: StepContext, recorded: bool, updates: bool, may_change: bool) -> None:
        """Wait for the numbers of a step and let everyone decide on it.

        Args:
            context: What the loop knows of it.
            recorded: It belongs to the history.
            updates: Measure how it changes the weights.
            may_change: Others may still change the gradients before they are used.
        """
        row, probe = self._row, self._row.probe
        probe.ahead = False
        read = row.guard.call(probe, probe.read, context, default=None)
        findings: list[Finding] = []
        sample: Sample | None = None
        take_part(row, context, failed=read is None, again=may_change)
        if read is not None:
            sample, aftermath = read
            row.judge.complete(aftermath)
            seek = None if context.replay is None else partial(name_culprit, row, context)
            sample, findings = row.judge.take_in(sample, recorded, seek)
        row.acting.tell(decide(row, context, sample, findings, updates, may_change))

    def bring(self, step: OpenStep) -> None:
        """Take in what a step has left behind."""
        self._row.judge.complete(step.finish(self._row.probe.host.fetch(step.tensors)))


def decide(
    row: Row,
    context: StepContext,
    sample: Sample | None,
    findings: list[Finding],
    updates: bool,
    may_change: bool,
) -> list[ActionRecord]:
    """Let every action decide on a step.

    Args:
        row: Everyone whom a step passes.
        context: The step.
        sample: What it looks like; None: it could not be read here.
        findings: What was found.
        updates: Measure how it changes the weights.
        may_change: Others may still change the gradients before they are used.

    Returns:
        What was done, to be told.
    """
    probe = row.probe
    loss = math.nan if sample is None else sample.loss
    if row.acting.actions:
        # Here and nowhere else, so that a rank whose probe failed keeps no other waiting.
        findings, loss = row.acting.agree(findings, loss, context.step, probe)
    if sample is None or not row.guard.works(probe):
        return []
    training, records = row.acting.act(context, probe, sample, findings, loss, last=not may_change)
    row.guard.call(
        probe,
        probe.watch_step,
        updates=updates and not training.skipped,
        may_change=may_change,
        clipped_norm=math.nan if training.skipped else training.global_norm,
        default=None,
    )
    return records


def name_culprit(row: Row, context: StepContext, found: list[Finding]) -> list[Finding]:
    """Name who produced a NaN, while the weights are still those that it came from."""
    if context.replay is None or not any(f.code == "nonfinite" for f in found):
        return found
    row.probe.disarm_flow()  # its hooks are not for the replay
    return row.seeker.seek(found, context.replay, context.batch_idx, row.judge.history)


def take_part(row: Row, context: StepContext, failed: bool, again: bool) -> None:
    """Keep no other process waiting in a collective.

    Args:
        row: Everyone whom a step passes.
        context: The step.
        failed: It could not be read here.
        again: Sharded gradients are read after the step as well.
    """
    shared, optimizer = row.probe.collectives, context.optimizer
    if failed:
        row.guard.call("taking part", shared.abstain, optimizer, default=None)
    row.guard.call("taking part", shared.look_again, optimizer, again, default=None)
