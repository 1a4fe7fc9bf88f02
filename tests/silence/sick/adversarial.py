"""GANs under manual optimization, whose critic takes too long steps."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.silence.case import Task, Trial
from tests.silence.data import batches, digits
from tests.silence.healthy.generative import likeness
from tests.silence.sick.depth import mlp
from tests.silence.sick.illness import LOWER_LR, sick


class GAN(Task):
    """The recipe of Lightning: manual optimization, two optimizers."""

    def __init__(self, generator: nn.Module, critic: nn.Module, lr: float) -> None:
        super().__init__(generator, lambda net, x: x)
        self.automatic_optimization = False
        self.critic, self.critic_lr = critic, lr

    def configure_optimizers(self) -> Any:
        make = torch.optim.Adam(self.net.parameters(), 2e-3, betas=(0.5, 0.999))
        return make, torch.optim.SGD(self.critic.parameters(), self.critic_lr)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        [real] = batch
        make, judge = self.optimizers()
        z = torch.randn(len(real), 8)
        self.toggle_optimizer(judge)
        loss = F.softplus(-self.critic(real)).mean() + F.softplus(self.critic(self.net(z))).mean()
        judge.zero_grad()
        self.manual_backward(loss)
        judge.step()
        self.untoggle_optimizer(judge)
        self.toggle_optimizer(make)
        loss = F.softplus(-self.critic(self.net(z))).mean()
        make.zero_grad()
        self.manual_backward(loss)
        make.step()
        self.untoggle_optimizer(make)
        self.losses.append(float(loss.detach()))


def gan(lr: float) -> Trial:
    x, _ = digits()
    x = (2 * x - 1).flatten(1)
    generator = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.Tanh())
    task = GAN(generator, mlp([64, 64, 32, 1]), lr)
    return Trial(task, batches(x, steps=110), lambda: likeness(task, x), 0.7)


@sick(
    code="dead_units",
    layers=("critic.0", "critic.2"),
    spared=("net.0", "net.2"),
    summary=r"units of critic\.1 and critic\.3 are zero for every input",
    cause=r"They died in training: with the learning rate \(lr=5 at the start\)",
    remedy=LOWER_LR,
    also=("vanishing",),
)
def gan_whose_critic_dies(lr: float = 5.0) -> Trial:
    return gan(lr)


@sick(
    code="exploding",
    layers=("critic.0",),
    spared=("net.0", "net.2"),
    summary=r"The gradient explodes",
    cause=r"The learning rate \(lr=30 at the start\) is too high",
    remedy=LOWER_LR,
    also=("nonfinite", "dead_units"),
)
def gan_whose_critic_explodes(lr: float = 30.0) -> Trial:
    return gan(lr)


CASES = (
    gan_whose_critic_dies,
    gan_whose_critic_explodes,
)
