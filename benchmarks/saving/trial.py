"""One run under one policy, and what became of it."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from benchmarks.saving.accidents import Struck
from benchmarks.saving.patients import Patient
from benchmarks.saving.policies import Policy
from benchmarks.zoo.models import Learner
from benchmarks.zoo.probe import look
from benchmarks.zoo.tasks import constant_loss, task_of
from benchmarks.zoo.train import fit
from benchmarks.zoo.truth import reference_of

#: Looks at the whole data set, evenly over the last fifth.
LOOKS = 7


@dataclass
class Result:
    """What became of a run.

    Attributes:
        loss: On the whole data set, over that of the best constant predictor: median over the
            last fifth of the run, or at its end if it was ended early. NaN when not finite.
        progress: 0 for the best constant predictor, 1 for what a competent model reaches.
        steps: Optimizer steps the Trainer counted.
        lost: Of them, those that are not in the weights at the end: left out, or undone.
        weights: Fingerprint of the weights at the end.
        actions: How often each action intervened.
        first: The first interventions: step, action, reason.
        codes: What was found, with the first step, by severity WARNING or higher.
        advised: Whether some finding came with a remedy.
        error: What ended the run, if it was an error.
        seconds: CPU time.
    """

    loss: float = math.nan
    progress: float = math.nan
    steps: int = 0
    lost: int = 0
    weights: str = ""
    actions: dict[str, int] = field(default_factory=dict)
    first: list[tuple[int, str, str]] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)
    advised: bool = False
    error: str = ""
    seconds: float = 0.0


class SkipNonfinite(pl.Callback):
    """The least that skipping can be, with no line of the package in it."""

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Forget gradients that are not finite."""
        every = [p for group in optimizer.param_groups for p in group["params"]]
        grads = [p.grad for p in every if p.grad is not None]
        values = [g.coalesce()._values() if g.is_sparse else g for g in grads]
        if not all(bool(torch.isfinite(v).all()) for v in values):
            for parameter in every:
                parameter.grad = None


class Witness(pl.Callback):
    """Sees the loss of the last fifth, and which steps did not stay in the weights.

    A step is lost if the weights after it, or before the next one, are bit for bit those of an
    earlier moment. Whatever an action says of itself plays no part. An overflow under a gradient
    scaler is no loss: the scaler would have left that step out without any policy.

    Args:
        patient: The run.
    """

    def __init__(self, patient: Patient) -> None:
        self.config = patient.config
        self.task = task_of(patient.config)
        self.constant = constant_loss(self.task, patient.config.loss)
        self.losses: list[float] = []
        self.made = self.useful = 0
        self._players = 2 if patient.config.arch == "gan" else 1
        first = math.ceil(0.8 * patient.config.steps)
        self._due = {round(s) for s in np.linspace(first, patient.config.steps, LOOKS)}
        self._print, self._scale = "", 0.0
        self._useful: dict[str, int] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: Learner) -> None:  # type: ignore[override]
        """Remember the beginning."""
        self._print = fingerprint(pl_module)
        self._useful[self._print] = 0
        self._scale = _scale(trainer)

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Learner, *_: Any) -> None:  # type: ignore[override]
        """Notice weights that were put back."""
        self._turn_back(fingerprint(pl_module))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Learner, *_: Any) -> None:  # type: ignore[override]
        """Notice a step that did not happen; look at the loss when it is time."""
        step = trainer.global_step // self._players
        if step == self.made:
            return
        self.made = step
        now, scale = fingerprint(pl_module), _scale(trainer)
        if now not in self._useful or scale < self._scale:
            self.useful += 1
            self._useful.setdefault(now, self.useful)
        else:
            self._turn_back(now)
        self._print, self._scale = now, scale
        if step in self._due:
            self._due.discard(step)
            self._look(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Learner) -> None:  # type: ignore[override]
        """Look at what a run that was ended early leaves behind."""
        if self._due:
            self.losses.clear()
            self._look(pl_module)

    def _turn_back(self, now: str) -> None:
        if now != self._print and now in self._useful:
            self.useful = self._useful[now]
            self._print = now

    def _look(self, model: Learner) -> None:
        found = look(model.net, self.task, self.config, self.made, self.constant, brief=True)
        # Running statistics with a NaN in them are of no use, whatever the weights.
        sound = all(bool(torch.isfinite(b).all()) for b in model.buffers())
        self.losses.append(found.loss if sound else math.nan)


def fingerprint(model: torch.nn.Module) -> str:
    """Return a short hash of all weights."""
    digest = hashlib.blake2b(digest_size=12)
    for parameter in model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def _scale(trainer: pl.Trainer) -> float:
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return float(scaler.get_scale()) if scaler is not None else 0.0


def attempt(patient: Patient, policy: Policy, seed: int) -> Result:
    """Train a patient under a policy."""
    patient = replace(patient, config=replace(policy.config(patient.config), seed=seed))
    watch, witness = policy.watcher(), Witness(patient)
    callbacks: list[Any] = [
        *([watch] if watch else []),
        *([SkipNonfinite()] if policy.skip else []),
    ]
    result = Result()
    started = time.process_time()

    def wrap(batches: Any) -> Iterator[tuple[Tensor, Tensor]]:
        return Struck(batches, patient.accidents, witness.task.outputs)  # type: ignore[return-value]

    try:
        settings = {"detect_anomaly": True} if policy.anomaly else {}
        fit(patient.config, *callbacks, witness, wrap=wrap, **settings)
    except Exception as error:
        result.error = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    result.seconds = round(time.process_time() - started, 3)
    result.steps, result.lost = witness.made, witness.made - witness.useful
    result.weights = witness._print
    if not result.error:
        result.loss = float(np.median(witness.losses))
        result.progress = (1 - result.loss) / (1 - reference_of(patient.config))
    if watch is not None:
        records = watch.actions_taken
        result.actions = dict(Counter(r.action for r in records))
        result.first = [(r.step, r.action, r.reason[:200]) for r in records[:8]]
        bad = [f for f in watch.findings if f.severity.name != "INFO"]
        result.codes = {f.code: f.first_step for f in reversed(bad)}
        result.advised = any(f.remedies for f in bad)
    return result
