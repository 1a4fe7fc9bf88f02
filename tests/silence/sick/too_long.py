"""Steps that are too long: training swings or diverges."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tests.silence.case import Task, Trial, accuracy
from tests.silence.data import batches, flat_digits, houses, lines, text
from tests.silence.healthy.language import next_character
from tests.silence.healthy.vision import digit_reader
from tests.silence.sick.depth import mlp
from tests.silence.sick.illness import LOWER_LR, sgd, sick


@sick(
    code="exploding",
    summary=r"The gradient explodes",
    cause=r"targets",
    remedy=r"Standardise .*targets.*",
    change={"standardise": True},
    also=("nonfinite", "dead_units"),
)
def regression_on_unscaled_prices(standardise: bool = False) -> Trial:
    """House prices of 3e5, plain SGD."""
    x, y = houses()
    if standardise:
        y = (y - y.mean()) / y.std()
    task = Task(mlp([8, 32, 32, 1]), lambda net, x, y: F.mse_loss(net(x), y), sgd(0.1))
    mean = float((y - y.mean()).square().mean())
    return Trial(task, batches(x, y, steps=90), lambda: 1 - task.last / mean, 0.7)


@sick(
    code="exploding",
    summary=r"The gradient explodes",
    cause=r"The loss has no lower end",
    remedy=r"Look for the sign of the loss: it falls without end\. .*",
    change={"sign": 1.0},
    also=("nonfinite",),
)
def loss_of_the_wrong_sign(sign: float = -1.0) -> Trial:
    """Cross-entropy maximised."""
    x, y = flat_digits()
    net = mlp([64, 64, 64, 10])
    task = Task(net, lambda net, x, y: sign * F.cross_entropy(net(x), y), lr=1e-2)
    return Trial(task, batches(x, y, steps=130), lambda: accuracy(net, x[:600], y[:600]), 0.8)


class Words(nn.Module):
    """Tells the next character from the latest four."""

    def __init__(self) -> None:
        super().__init__()
        _, kinds = text()
        self.embed = nn.Embedding(kinds, 24)
        self.mix = nn.Conv1d(24, 64, 4)
        self.head = nn.Linear(64, kinds)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.embed(x).transpose(1, 2), (3, 0))
        return self.head(self.mix(x).tanh().transpose(1, 2))


def next_of(net: nn.Module, steps: int, **task: Any) -> Trial:
    """Return a trial that has to tell the next character better than a guess, in nats."""
    _, kinds = text()
    task = Task(net, next_character, **task)
    return Trial(task, lines(steps), lambda: math.log(kinds) - task.last, 1.0)


@sick(
    code="saturated",
    layers=("net.mix",),
    summary=r"tanh\(net\.mix\) \(tanh\) lie on its flat parts",
    cause=r"Training drove them there: with the learning rate \(lr=0\.5 at the start\)",
    remedy=LOWER_LR,
)
def character_model_at_a_high_rate(lr: float = 0.5) -> Trial:
    return next_of(Words(), 90, lr=lr)


def bigrams() -> nn.Sequential:
    _, kinds = text()
    return nn.Sequential(nn.Embedding(kinds, 24), nn.Linear(24, kinds))


@sick(
    code="oscillating",
    summary=r"loss",
    cause=r"The learning rate \(lr=3 at the start\) is too high",
    remedy=LOWER_LR,
)
def embeddings_at_a_high_rate(lr: float = 3.0) -> Trial:
    """The loss begins at 4, is at 200 within five steps, and stays there."""
    return next_of(bigrams(), 140, lr=lr)


@sick(
    code="exploding",
    summary=r"The gradient explodes: .*the loss has risen to",
    cause=r"The learning rate \(lr=30 at the start\) is too high",
    remedy=LOWER_LR,
    also=("nonfinite",),
)
def embeddings_with_sgd_at_a_high_rate(lr: float = 30.0) -> Trial:
    return next_of(bigrams(), 80, optimizer=sgd(lr))


@sick(
    code="oscillating",
    summary=r"The loss swings instead of falling",
    cause=r"The learning rate \(lr=1\.5 at the start\) is too high",
    remedy=LOWER_LR,
    also=("saturated", "vanishing"),
)
def tanh_mlp_at_a_high_rate(lr: float = 1.5) -> Trial:
    return digit_reader(mlp([64, 64, 64, 10], nn.Tanh), 140, flat=True, optimizer=sgd(lr))


@sick(
    code="oscillating",
    summary=r"The loss swings instead of falling: .* the 2\.\d at which it began",
    cause=r"The learning rate \(lr=2 at the start\) is too high",
    remedy=LOWER_LR,
    also=("saturated", "vanishing"),
    wrong={
        "code": "told to vanish, at step 52, before it is told to swing, at step 63",
    },
)
def tanh_mlp_at_a_higher_rate(lr: float = 2.0) -> Trial:
    return digit_reader(mlp([64, 64, 64, 10], nn.Tanh), 140, flat=True, optimizer=sgd(lr))


class Rows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 32, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x[:, 0])[0][:, -1])


@sick(
    code="oscillating",
    summary=r"loss",
    cause=r"The learning rate \(lr=0\.5 at the start\) is too high",
    remedy=LOWER_LR,
    also=("saturated",),
)
def gru_at_a_high_rate(lr: float = 0.5) -> Trial:
    return digit_reader(Rows(), 140, lr=lr)


CASES = (
    regression_on_unscaled_prices,
    loss_of_the_wrong_sign,
    character_model_at_a_high_rate,
    embeddings_at_a_high_rate,
    embeddings_with_sgd_at_a_high_rate,
    tanh_mlp_at_a_high_rate,
    tanh_mlp_at_a_higher_rate,
    gru_at_a_high_rate,
)
