"""What people do today, as they do it: the peers that watching is compared with.

`Recipe`, `watch` and Lightning's clipping are the real thing. `GradientStatsMonitor`,
`OptimizerMonitor` and `ZClip` are not installed here: they are written anew from their documented
behaviour. Where the documentation leaves open how something is done, the faster way was taken.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import grad_norm
from torch import Tensor, nn

from benchmarks.cost.training import Task


class Recipe(Task):
    """The recipe of Lightning's documentation: every norm through `self.log_dict`."""

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Log the norm of every gradient."""
        self.log_dict(grad_norm(self.model, norm_type=2))


class ItemLoop(pl.Callback):
    """The loop of a hundred scripts: the norm of every gradient as a number, kept nowhere."""

    norms: dict[str, float]

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        """Read every gradient."""
        self.norms = {
            name: p.grad.norm().item()
            for name, p in module.named_parameters()
            if p.grad is not None
        }


class Histograms(pl.Callback):
    """A TensorBoard histogram of every gradient.

    Args:
        every: On every so many-th step.
    """

    def __init__(self, every: int = 50) -> None:
        self.every = every

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        """Write the histograms when it is time."""
        if trainer.global_step % self.every == 0:
            writer = trainer.logger.experiment
            for name, p in module.named_parameters():
                if p.grad is not None:
                    writer.add_histogram(f"grad/{name}", p.grad, trainer.global_step)


class GradientStatsMonitor(pl.Callback):
    """The callback proposed to Lightning (pull requests 21596 and 21720), with its defaults.

    On every step: norm, mean, standard deviation and share of near-zero elements of the gradients,
    summed up for the epoch, and a warning when the norm is above a threshold. On every 50th step
    they are logged; with `per_layer` the norm of each parameter as well. The proposal goes over the
    gradients again on the steps that log; here what the epoch needs serves both.
    """

    def __init__(self, per_layer: bool = False, every: int = 50, threshold: float = 1e4) -> None:
        self.per_layer, self.every, self.threshold = per_layer, every, threshold
        self.epoch: dict[str, float] = {}

    def on_train_epoch_start(self, *_: Any) -> None:
        """Forget the epoch before."""
        self.epoch = {}

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        """Measure, sum up, and log when it is time."""
        found: dict[str, float] = {}
        squares = total = zeros = 0.0
        count = 0
        for name, p in module.named_parameters():
            if p.grad is None:
                continue
            grad = p.grad.detach().reshape(-1)
            norm = grad.norm(2).item()
            squares += norm * norm
            total += grad.sum().item()
            zeros += int((grad.abs() < 1e-6).sum())
            count += grad.numel()
            if self.per_layer:
                found[f"grad/{name.replace('.', '/')}_norm"] = norm
        if not count:
            return
        found |= {
            "grad/global_norm": math.sqrt(squares),
            "grad/mean": total / count,
            "grad/std": math.sqrt(max(squares / count - (total / count) ** 2, 0.0)),
            "grad/sparsity": zeros / count,
        }
        for name, value in found.items():
            self.epoch[name] = self.epoch.get(name, 0.0) + value
        if found["grad/global_norm"] > self.threshold:
            warnings.warn(f"Gradient norm is very high: {found['grad/global_norm']}", stacklevel=2)
        if trainer.global_step % self.every == 0:
            module.log_dict({f"train/{name}": value for name, value in found.items()})


class OptimizerMonitor(pl.Callback):
    """Composer's `OptimizerMonitor` with a stock optimizer: norms by parameter, to the logger.

    Its optimizer metrics need an optimizer of Composer's own and are not taken here.

    Args:
        every: `batch_log_interval`, 10 in Composer.
    """

    def __init__(self, every: int = 10) -> None:
        self.every = every

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        """Measure and log at the end of a batch."""
        if trainer.global_step % self.every:
            return
        found: dict[str, Tensor | float] = {}
        squares: Tensor | float = 0.0
        for name, p in module.named_parameters():
            if p.grad is not None and p.requires_grad:
                norm = torch.linalg.vector_norm(p.grad)
                found[f"l2_norm/grad/{name}"] = norm
                squares = squares + norm**2
        found["l2_norm/grad/global"] = squares**0.5
        trainer.logger.log_metrics(found, step=trainer.global_step)


class ZClip(pl.Callback):
    """ZClip (Kumar et al. 2025) after its paper and its README, with their settings.

    The norm of every step is brought to the host; after 25 steps an exponential mean and variance
    of it say which steps to clip.
    """

    alpha, limit, warm_up = 0.97, 2.5, 25

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.mean = self.variance = math.nan

    def on_after_backward(self, trainer: Any, module: Any) -> None:
        """Judge the norm of the step, and clip it if it is an outlier."""
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        norm = torch.stack([torch.linalg.vector_norm(g) for g in grads]).norm().item()
        if len(self.norms) < self.warm_up:
            self.norms.append(norm)
            if len(self.norms) == self.warm_up:
                self.mean = sum(self.norms) / self.warm_up
                self.variance = sum((n - self.mean) ** 2 for n in self.norms) / self.warm_up
            return
        score = (norm - self.mean) / (self.variance**0.5 + 1e-6)
        used = norm
        if score > self.limit:
            used = self.mean + self.limit * self.variance**0.5 / (score / self.limit)
            for grad in grads:
                grad.mul_(used / (norm + 1e-6))
        self.mean = self.alpha * self.mean + (1 - self.alpha) * used
        self.variance = self.alpha * self.variance + (1 - self.alpha) * (used - self.mean) ** 2


def watch(model: nn.Module, logger: Any, every: int, advance: int) -> None:
    """Let W&B watch a model's gradients.

    Args:
        model: The model.
        logger: Lightning's `WandbLogger`.
        every: `log_freq`.
        advance: Count so many backward passes as made, so that a step that logs falls into a window
            shorter than `every`.
    """
    logger.watch(model, log="gradients", log_freq=every, log_graph=False)
    leaves = [p for p in model.parameters() if p.requires_grad]
    for _ in range(advance):
        nothing = [leaf.new_zeros(()).expand_as(leaf) for leaf in leaves]
        torch.autograd.backward(leaves, nothing)
    for leaf in leaves:
        leaf.grad = None
