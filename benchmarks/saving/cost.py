"""What a policy costs on a run that is well: whole training steps beside those without it."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch

from benchmarks.cost.models import build
from benchmarks.cost.training import Task
from benchmarks.saving.policies import NONE, Policy


class Clock(pl.Callback):
    """CPU time of each whole step; first in the list, so that everything lies between two reads."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """Note the time."""
        self.times.append(time.process_time())

    def mean(self) -> float:
        """Mean step in milliseconds, without the first twelve."""
        return 1e3 * (self.times[-1] - self.times[12]) / (len(self.times) - 13)


class Learning(Task):
    """Learns for real, unlike the overhead's: a snapshot of weights that move is the cost."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, whose moments a snapshot holds as well."""
        return torch.optim.Adam(self.parameters(), lr=1e-5)


def step_time(policy: Policy, steps: int) -> float:
    """Return the mean CPU time of a step in milliseconds, without the first twelve."""
    torch.manual_seed(0)
    clock, watch = Clock(), policy.watcher()
    callbacks: list[Any] = [clock, *([watch] if watch else [])]
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=callbacks, gradient_clip_val=policy.clip or None,
        detect_anomaly=policy.anomaly,
    )  # fmt: skip
    trainer.fit(Learning(build("mlp")), [0] * steps)
    return clock.mean()


def costs(policies: Sequence[Policy], rounds: int = 3, steps: int = 162) -> dict[str, float]:
    """Return each policy's step time over that of the plain run, by name.

    Args:
        policies: Which.
        rounds: Each measures all of them once, in random order; the figure is the median.
        steps: Of each run.
    """
    torch.set_num_threads(1)
    ratios: dict[str, list[float]] = {policy.name: [] for policy in policies}
    for round_ in range(rounds):
        plain = step_time(NONE, steps)
        for policy in random.Random(round_).sample(list(policies), len(policies)):
            ratios[policy.name].append(step_time(policy, steps) / plain)
    return {name: statistics.median(values) for name, values in ratios.items()}
