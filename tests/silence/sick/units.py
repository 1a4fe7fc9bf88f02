"""ReLUs that are off for every input."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tests.silence.case import Trial
from tests.silence.healthy.vision import conv, digit_reader, pool_and_tell
from tests.silence.sick.depth import mlp
from tests.silence.sick.illness import LOWER_LR, NORMALISE, sgd, sick


class Functional(nn.Module):
    """An MLP that calls F.relu, as tutorials do."""

    def __init__(self, bias: float = 0.0, normalise: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 64)
        self.fc2 = nn.Linear(64, 64)
        self.out = nn.Linear(64, 10)
        self.norm1 = nn.BatchNorm1d(64) if normalise else nn.Identity()
        self.norm2 = nn.BatchNorm1d(64) if normalise else nn.Identity()
        for layer in (self.fc1, self.fc2):
            nn.init.constant_(layer.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.fc1(x)))
        x = F.relu(self.norm2(self.fc2(x)))
        return self.out(x)


@sick(
    code="dead_units",
    layers=("net.fc1",),
    spared=("net.out",),
    summary=r"units of .*relu.* are zero for every input",
    cause=r"They were off from the first step on: the initial biases or weights put them on the "
    r"negative side",
    remedy=NORMALISE,
    change={"normalise": True},
    also=("vanishing",),
)
def relus_dead_by_their_biases(normalise: bool = False) -> Trial:
    return digit_reader(Functional(-5.0, normalise), 70, 0.7, flat=True)


@sick(
    code="exploding",
    summary=r"The gradient explodes: its norm is .*, and the loss has risen to 2\d\d",
    cause=r"The learning rate \(lr=0\.3 at the start\) is too high",
    remedy=LOWER_LR,
    also=("dead_units", "vanishing"),
)
def relus_killed_by_a_high_rate(lr: float = 0.3) -> Trial:
    """Adam, with a rate that SGD would like; no unit survives the first steps."""
    return digit_reader(mlp([64, 64, 64, 10]), 90, flat=True, lr=lr)


@sick(
    code="exploding",
    summary=r"The gradient explodes: its norm is .*, and the loss has risen to",
    cause=r"The learning rate \(lr=10 at the start\) is too high",
    remedy=LOWER_LR,
    also=("dead_units", "vanishing"),
)
def functional_relus_killed_by_a_high_rate(lr: float = 10.0) -> Trial:
    return digit_reader(Functional(), 110, 0.7, flat=True, optimizer=sgd(lr))


@sick(
    code="dead_units",
    summary=r"zero for every input",
    cause=r"learning rate \(lr=1 at the start\)",
    remedy=LOWER_LR,
    also=("vanishing",),
    wrong={
        "code": "its units die between the looks at steps 9 and 50, and are told at step 100",
    },
)
def cnn_with_momentum_at_a_high_rate(lr: float = 1.0) -> Trial:
    net = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 24, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(24, 24, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 10),
    )  # fmt: skip
    return digit_reader(net, 120, optimizer=sgd(lr, 0.9))


@sick(
    code="dead_units",
    layers=("net.1.0",),
    spared=("net.2.2",),
    summary=r"units of net\.1\.2 are zero for every input",
    cause=r"They died in training: with the learning rate \(lr=12 at the start\)",
    remedy=LOWER_LR,
    also=("vanishing",),
)
def normalised_cnn_at_a_high_rate(lr: float = 12.0) -> Trial:
    """BatchNorm's own bias is what turns the units off."""
    net = nn.Sequential(conv(1, 12), conv(12, 24, 2), pool_and_tell(24))
    return digit_reader(net, 100, 0.6, optimizer=sgd(lr))


CASES = (
    relus_dead_by_their_biases,
    relus_killed_by_a_high_rate,
    functional_relus_killed_by_a_high_rate,
    cnn_with_momentum_at_a_high_rate,
    normalised_cnn_at_a_high_rate,
)
