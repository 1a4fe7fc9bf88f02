"""The LightningModules: what is learnt, with which optimizer, with which fault."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn, optim

from benchmarks.zoo.config import Config
from benchmarks.zoo.faults import LOSSES, parameters_for
from benchmarks.zoo.nets import GAN, Autoencoder
from benchmarks.zoo.tasks import loss_of, task_of
from benchmarks.zoo.weights import build_net

#: Share of the learning rate, by step and number of steps.
SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda step, steps: 1.0,
    "linear": lambda step, steps: max(0.0, 1.0 - step / steps),
    "cosine": lambda step, steps: 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0))),
    "exponential": lambda step, steps: 0.01 ** (step / steps),
    "step": lambda step, steps: 0.1 ** (3 * step // steps),
    "collapse": lambda step, steps: 0.5**step,
    "collapse8": lambda step, steps: 0.8**step,
    "spike": lambda step, steps: 30.0 if step == steps // 3 else 1.0,
    "spike2": lambda step, steps: 12.0 if step == steps // 4 else 1.0,
    "burst": lambda step, steps: 300.0 if 10 <= step < 13 else 1.0,
    "burst2": lambda step, steps: 1000.0 if step == 25 else 1.0,
    "jolt": lambda step, steps: 100.0 if steps // 2 <= step < steps // 2 + 3 else 1.0,
    "kick": lambda step, steps: 1000.0 if step == 2 * steps // 5 else 1.0,
    "growing": lambda step, steps: 1.06**step,
    "restarts": lambda step, steps: 0.5 * (1 + math.cos(math.pi * (3 * step / steps % 1))),
    "cyclic": lambda step, steps: 1.0 + 19.0 * (1 - abs(6 * step / steps % 2 - 1)),
    "onecycle": lambda step, steps: min(
        0.04 + 3.2 * step / steps, 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))
    ),
}


def make_optimizer(parameters: Any, config: Config) -> optim.Optimizer:
    """Return the optimizer."""
    lr, decay = config.lr, config.weight_decay
    if config.optimizer == "sgd":
        return optim.SGD(parameters, lr, momentum=config.momentum, weight_decay=decay)
    if config.optimizer == "rmsprop":
        return optim.RMSprop(parameters, lr, weight_decay=decay)
    if config.optimizer == "adagrad":
        return optim.Adagrad(parameters, lr, weight_decay=decay)
    if config.optimizer == "nesterov":
        return optim.SGD(
            parameters, lr, momentum=config.momentum, weight_decay=decay, nesterov=True
        )
    if config.optimizer == "adamax":
        return optim.Adamax(parameters, lr, weight_decay=decay)
    if config.optimizer == "nadam":
        return optim.NAdam(parameters, lr, weight_decay=decay)
    betas = (config.momentum or 0.9, 0.999)
    kind = optim.AdamW if config.optimizer == "adamw" else optim.Adam
    return kind(parameters, lr, betas=betas, weight_decay=decay)


class Learner(pl.LightningModule):
    """Learns a task by automatic optimization.

    Args:
        config: The run.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.task = task_of(config)
        self.net = build_net(self.task, config)
        #: Of the latest batch; NaN where there is no such thing.
        self.accuracy = math.nan

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def objective(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss that is backpropagated, with whatever is wrong with it."""
        config = self.config
        penalty: Tensor | float = 0.0
        if config.sparse and isinstance(self.net, Autoencoder):
            code = self.net.encoder(x)
            penalty = config.sparse * code.abs().mean()
            output = self.net.decode(code)
        else:
            output = self.net(x)
        if config.precision != "32":
            output = output.float()
        if self.task.kind == "class":
            self.accuracy = float((output.argmax(-1) == y).float().mean())
        if config.fault in LOSSES:
            loss = LOSSES[config.fault](output, x, y)
        else:
            loss = loss_of(self.task, config.loss, output, y)
        loss = loss + penalty
        return -loss if config.fault == "ascent" else loss

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the scaled loss of one batch."""
        return self.objective(*batch) * self.config.loss_scale

    def configure_optimizers(self) -> Any:
        """Return the optimizer, and its schedule step by step."""
        config = self.config
        optimizer = make_optimizer(parameters_for(self.net, config.fault), config)
        if config.schedule == "constant" and not config.warmup:
            return optimizer
        shape = SCHEDULES[config.schedule]

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
            return rise * shape(step, config.steps)

        scheduler = optim.lr_scheduler.LambdaLR(optimizer, factor)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class Adversary(Learner):
    """A GAN by manual optimization: one step of each optimizer for every batch."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:  # type: ignore[override]
        """Teach the discriminator, then the generator."""
        real, _ = batch
        net = self.net
        assert isinstance(net, GAN)
        for_generator, for_discriminator = cast("list[Any]", self.optimizers())
        bce = nn.functional.binary_cross_entropy_with_logits
        ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        fake = net.generator(torch.randn(len(real), 4))

        self.toggle_optimizer(for_discriminator)
        judged, exposed = net.discriminator(real), net.discriminator(fake.detach())
        loss = bce(judged, 0.9 * ones) + bce(exposed, zeros)
        for_discriminator.zero_grad()
        self.manual_backward(loss * self.config.loss_scale)
        for_discriminator.step()
        self.untoggle_optimizer(for_discriminator)

        self.toggle_optimizer(for_generator)
        loss = bce(net.discriminator(fake), ones)
        for_generator.zero_grad()
        self.manual_backward(loss * self.config.loss_scale)
        for_generator.step()
        self.untoggle_optimizer(for_generator)

    def configure_optimizers(self) -> Any:
        """Return one optimizer for each player."""
        net = self.net
        assert isinstance(net, GAN)
        return [
            make_optimizer(net.generator.parameters(), self.config),
            make_optimizer(net.discriminator.parameters(), self.config),
        ]


def make_model(config: Config) -> Learner:
    """Return the LightningModule for a config."""
    return Adversary(config) if config.arch == "gan" else Learner(config)
