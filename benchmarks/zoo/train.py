"""Runs a config through a Trainer: measured, watched, or as the hooks of rivals would see it."""

from __future__ import annotations

import itertools
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from benchmarks.zoo.config import Config
from benchmarks.zoo.faults import spoil
from benchmarks.zoo.models import Learner, make_model
from benchmarks.zoo.probe import Look, look
from benchmarks.zoo.raw import RawMonitor
from benchmarks.zoo.tasks import constant_loss
from benchmarks.zoo.trace import Trace
from benchmarks.zoo.weights import matrices
from lightning_gradwatch import GradWatch
from lightning_gradwatch.sample import Sample


class Batches:
    """A loader over tensors in memory: shuffled anew each epoch, short batches left out.

    Args:
        x: Inputs.
        y: Targets.
        config: Its batch size and seed.
    """

    def __init__(self, x: Tensor, y: Tensor, config: Config) -> None:
        self.x, self.y, self.size = x, y, config.batch
        self.generator = torch.Generator().manual_seed(config.seed + 1)

    def __len__(self) -> int:
        return len(self.x) // self.size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.x), generator=self.generator)
        for i in range(len(self)):
            rows = order[i * self.size : (i + 1) * self.size]
            yield self.x[rows], self.y[rows]


def fit(
    config: Config,
    *callbacks: Any,
    wrap: Callable[[Batches], Iterable[tuple[Tensor, Tensor]]] = lambda batches: batches,
    **trainer: Any,
) -> Learner:
    """Train by a Trainer that leaves nothing behind, and return the model.

    Args:
        config: The run.
        *callbacks: Of the Trainer.
        wrap: Makes of the loader the one that is trained on.
        **trainer: Further settings of the Trainer.
    """
    _be_quiet()
    model = make_model(config)
    torch.manual_seed(config.seed + 2)
    players = 2 if config.arch == "gan" else 1
    settings: dict[str, Any] = {
        "max_steps": config.steps * players,
        "max_epochs": -1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accumulate_grad_batches": config.accumulate,
        "gradient_clip_val": config.clip or None,
        "callbacks": list(callbacks),
    }
    if config.precision == "bf16":
        settings["precision"] = "bf16-mixed"
    elif config.precision == "fp16":
        from pytorch_lightning.plugins.precision import MixedPrecision

        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
        settings["plugins"] = [MixedPrecision("16-mixed", "cpu", scaler)]
    batches = Batches(*spoil(model.task, config.fault), config)
    pl.Trainer(**settings | trainer).fit(model, wrap(batches))
    return model


def _be_quiet() -> None:
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


@dataclass
class Measured:
    """What was measured of one run.

    Attributes:
        looks: At the whole data set, in order.
        losses: Of each step's batches, over L_const; mean over micro-batches.
        norms: Gradient norm of each step's batches.
        elasticity: Largest |w| |g| / L_const of a matrix at each step.
        nonfinite: First step with a loss, gradient or parameter that is not finite; -1 for none.
    """

    looks: list[Look] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    elasticity: list[float] = field(default_factory=list)
    nonfinite: int = -1


def checkpoints(steps: int) -> set[int]:
    """Return the numbers of steps after which to look: dense at first, then every thirtieth."""
    dense = {0, 1, 2, 3, 5, 8, 12, 18, 26}
    return {s for s in dense if s < steps} | {round(steps * i / 30) for i in range(31)}


class _Measure(pl.Callback):
    def __init__(self, config: Config, constant: float, brief: bool) -> None:
        self.config, self.constant, self.brief = config, constant, brief
        self.result = Measured()
        self._due = checkpoints(config.steps)
        if brief:
            self._due = {step for step in self._due if step >= 0.8 * config.steps}
        self._players = 2 if config.arch == "gan" else 1
        self._batch_losses: list[float] = []

    def _look(self, model: Learner, step: int) -> None:
        if step in self._due:
            self._due.discard(step)
            found = look(model.net, model.task, self.config, step, self.constant, self.brief)
            self.result.looks.append(found)
            if not found.finite:
                self._flag(step)

    def _flag(self, step: int) -> None:
        if self.result.nonfinite < 0:
            self.result.nonfinite = step

    def on_train_start(self, trainer: pl.Trainer, pl_module: Learner) -> None:  # type: ignore[override]
        self._look(pl_module, 0)

    def on_before_backward(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: Learner, loss: Tensor
    ) -> None:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scale = float(scaler.get_scale()) if scaler is not None else 1.0
        value = float(loss.detach()) * self.config.accumulate / scale / self.config.loss_scale
        self._batch_losses.append(value / self.constant)

    def on_before_optimizer_step(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: Learner, optimizer: Any
    ) -> None:
        step = len(self.result.norms) // self._players
        losses, self._batch_losses = self._batch_losses, []
        loss = sum(losses) / max(len(losses), 1)
        if not math.isfinite(loss):
            self._flag(step)
        if self.brief:
            self.result.norms.append(math.nan)
            return
        scaled = self.config.precision == "fp16"
        square, largest = 0.0, 0.0
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    square += float(parameter.grad.to_dense().double().norm()) ** 2 if (
                        parameter.grad.is_sparse
                    ) else float(parameter.grad.double().norm()) ** 2  # fmt: skip
        for weight in matrices(pl_module.net):
            if weight.grad is not None:
                grad = weight.grad.to_dense() if weight.grad.is_sparse else weight.grad
                product = float(weight.detach().double().norm() * grad.double().norm())
                largest = max(largest, product / (self.constant * self.config.loss_scale))
        norm = math.sqrt(square) if square < math.inf else square
        self.result.losses.append(loss)
        self.result.norms.append(norm / self.config.loss_scale)
        self.result.elasticity.append(largest)
        if not (scaled or math.isfinite(norm)):
            self._flag(step)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: Learner, *_: Any
    ) -> None:
        self._look(pl_module, trainer.global_step // self._players)


def measure(config: Config, brief: bool = False) -> Measured:
    """Train, and look at the whole data set on the way; briefly, only at the loss of the end."""
    from benchmarks.zoo.tasks import task_of

    callback = _Measure(config, constant_loss(task_of(config), config.loss), brief)
    fit(config, callback)
    return callback.result


class Tape:
    """A detector that keeps every sample and finds nothing."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def update(self, sample: Sample) -> Sequence[Any]:
        """Keep it."""
        self.samples.append(sample)
        return ()


def record(name: str, config: Config) -> Trace:
    """Watch a run as GradWatch does by default, and the same run with the hooks of rivals.

    Raises:
        RuntimeError: The two were not the same run, bit for bit.
    """
    tape, monitor = Tape(), RawMonitor()
    watch = GradWatch(detectors=[tape], record=False, reporters=[])
    watched = fit(config, watch)
    other = fit(config, monitor)
    pairs = zip(watched.state_dict().values(), other.state_dict().values(), strict=True)
    if not all(torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)) for a, b in pairs):
        raise RuntimeError(f"{name}: watching changed the run")
    layout = None
    shared: list[Sample] = []
    for sample in tape.samples:  # one object for all equal layouts, or the pickle grows
        layout = sample.layout if layout is None or layout != sample.layout else layout
        shared.append(replace(sample, layout=layout))
    return Trace(
        case=name,
        seed=config.seed,
        steps=config.steps,
        epoch_steps=max(1, math.ceil(len(watched.task.x) // config.batch / config.accumulate)),
        samples=tuple(shared),
        facts=watch._engine.diagnosis.facts,
        raw=tuple(itertools.chain(monitor.steps)),
    )
