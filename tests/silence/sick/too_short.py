"""Steps that are too short, or taken by nobody."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from tests.silence.case import Task, Trial
from tests.silence.healthy.vision import conv, digit_reader, pool_and_tell
from tests.silence.sick.depth import mlp
from tests.silence.sick.illness import ADAM, sgd, sick


@sick(
    code="stalled",
    summary=r"Training does not move",
    cause=r"The learning rate \(lr=1e-07 at the start\) is too low for Adam",
    remedy=r"Raise the learning rate: lr=(?P<lr>[\d.e-]+)\.",
)
def cnn_at_a_tiny_rate(lr: float = 1e-7) -> Trial:
    net = nn.Sequential(conv(1, 12), conv(12, 24, 2), pool_and_tell(24))
    return digit_reader(net, 105, 0.7, lr=lr)


@sick(
    code="stalled",
    summary=r"Training does not move",
    cause=r"The learning rate \(lr=1e-05 at the start\) is too low for SGD",
    remedy=ADAM,
)
def mlp_with_sgd_at_a_tiny_rate(adam: float = 0.0) -> Trial:
    optimizer = sgd(1e-5) if not adam else None
    return digit_reader(mlp([64, 64, 64, 10]), 130, flat=True, optimizer=optimizer, lr=adam)


@sick(
    code="stalled",
    summary=r"Training does not move",
    cause=r"The schedule has brought the learning rate from 0\.003 down to",
    remedy=r"Let the schedule last as long as training: .*; here it reached .* from 0\.003\.",
    change={"until": 130},
)
def schedule_that_ends_too_early(until: int = 8) -> Trial:
    """Written in epochs, stepped at every batch."""
    return digit_reader(
        mlp([64, 64, 64, 10]),
        130,
        flat=True,
        schedule=lambda o: LambdaLR(o, lambda step: max(0.0, 1 - step / until)),
    )


@sick(
    code="stalled",
    summary=r"\d % of the trainable weights have never had a step",
    cause=r"The optimizer does not hold most of the trainable parameters",
    remedy=r"Give the optimizer all parameters: configure_optimizers should pass "
    r"self\.parameters\(\)\.",
    change={"all_of_it": True},
)
def optimizer_of_the_head_only(all_of_it: bool = False) -> Trial:
    """Left over from fine-tuning; here the features below are random, and few."""
    net = nn.Sequential(conv(1, 8), conv(8, 16, 2), pool_and_tell(16))

    def optimizer(task: Task) -> torch.optim.Optimizer:
        return torch.optim.Adam((task if all_of_it else net[-1]).parameters(), lr=3e-3)

    return digit_reader(net, 210, 0.7, optimizer=optimizer)


@sick(
    code="stalled",
    summary=r"100 % of the trainable weights have never had a step",
    cause=r"The optimizer holds none of the model's parameters .* such as those of a copy",
    remedy=r"Give the optimizer all parameters: configure_optimizers should pass "
    r"self\.parameters\(\)\.",
    change={"stale": False},
)
def optimizer_of_a_stale_copy(stale: bool = True) -> Trial:
    net = mlp([64, 64, 64, 10])
    old = copy.deepcopy(net)

    def optimizer(task: Task) -> torch.optim.Optimizer:
        return torch.optim.Adam((old if stale else task).parameters(), lr=3e-3)

    return digit_reader(net, 210, flat=True, optimizer=optimizer)


@sick(
    code="vanishing",
    layers=("net.0",),
    summary=r"net\.0 receives",
    cause=r"The weights have shrunk to .* of their size: weight decay \(1\)",
    remedy=r"Lower the weight decay: weight_decay=(?P<decay>1e-4)\.",
    also=("dead_units",),
)
def weights_eaten_by_decay(decay: float = 1.0) -> Trial:
    """Adam's coupled weight decay at a value that suits AdamW's."""
    return digit_reader(
        mlp([64, 64, 64, 64, 10], nn.Tanh),
        110,
        flat=True,
        optimizer=lambda t: torch.optim.Adam(t.parameters(), 3e-3, weight_decay=decay),
    )


CASES = (
    cnn_at_a_tiny_rate,
    mlp_with_sgd_at_a_tiny_rate,
    schedule_that_ends_too_early,
    optimizer_of_the_head_only,
    optimizer_of_a_stale_copy,
    weights_eaten_by_decay,
)
