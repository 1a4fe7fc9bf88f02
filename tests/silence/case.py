"""What a case is: a model, its data, and the measure by which it learns."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gradwatch import Finding, GradWatch, Severity

Loss = Callable[..., Tensor]
Batch = tuple[Tensor, ...]


class Task(pl.LightningModule):
    """A net, a loss of the net and a batch, an optimizer of the task; remembers its losses.

    Args:
        net: The model.
        loss: Called with the net and what is in the batch.
        optimizer: Called with the task; None: Adam.
        lr: Learning rate of that Adam.
        schedule: Called with the optimizer, returns a scheduler that is stepped every step.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Loss,
        optimizer: Callable[[Task], torch.optim.Optimizer] | None = None,
        lr: float = 3e-3,
        schedule: Callable[[torch.optim.Optimizer], Any] | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.loss = loss
        self.losses: list[float] = []
        self._optimizer, self._lr, self._schedule = optimizer, lr, schedule

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(self.net, *batch)
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> Any:
        if self._optimizer is not None:
            optimizer = self._optimizer(self)
        else:
            optimizer = torch.optim.Adam(self.parameters(), lr=self._lr)
        if self._schedule is None:
            return optimizer
        schedule = {"scheduler": self._schedule(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    @property
    def first(self) -> float:
        """Mean of the first losses."""
        return sum(self.losses[:5]) / 5

    @property
    def last(self) -> float:
        """Mean of the last losses."""
        return sum(self.losses[-20:]) / 20


@dataclass
class Trial:
    """A case that is ready to run.

    Attributes:
        task: The model.
        batches: What it is trained on, one batch a step.
        score: How well it does, called after training.
        at_least: Scores from which it has learnt what it should.
        trainer: Arguments of the Trainer.
    """

    task: pl.LightningModule
    batches: Sequence[Any]
    score: Callable[[], float]
    at_least: float
    trainer: dict[str, Any] = field(default_factory=dict)


@dataclass
class Outcome:
    """What a run came to."""

    watch: GradWatch
    score: float
    at_least: float
    losses: list[float]

    @property
    def told(self) -> list[Finding]:
        """Findings that would alarm somebody."""
        return [f for f in self.watch.findings if f.severity >= Severity.WARNING]

    def named(self, code: str) -> Finding:
        """Return the finding of that code."""
        found = {f.code: f for f in self.watch.findings}
        assert code in found, f"found only {[(f.code, f.summary) for f in self.watch.findings]}"
        return found[code]


def run(make: Callable[[], Trial]) -> Outcome:
    """Train a case from its seed under a watch with default settings."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    trial = make()
    watch = GradWatch(record=False)
    extra = dict(trial.trainer)
    callbacks = [watch, *extra.pop("callbacks", [])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_epochs=extra.pop("max_epochs", 1),
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
            **extra,
        )
        trainer.fit(trial.task, DataLoader(trial.batches, batch_size=None, shuffle=False))
    trial.task.eval()
    score = float(trial.score())
    if not math.isfinite(score):
        score = -math.inf
    return Outcome(watch, score, trial.at_least, trial.task.losses)


def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of right answers."""
    with torch.no_grad():
        return float((net(x).argmax(-1) == y).float().mean())


def explained(prediction: Tensor, y: Tensor) -> float:
    """Return the share of the variance that is explained (R²)."""
    rest = (prediction.detach() - y).square().mean()
    return float(1 - rest / (y - y.mean(0)).square().mean())
