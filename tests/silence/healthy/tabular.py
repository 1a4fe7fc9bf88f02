"""Rows of numbers, and the losses that people put behind them."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.silence.case import Loss, Task, Trial, accuracy, explained
from tests.silence.data import batches, cancer, diabetes, flat_digits, houses


def mlp(*sizes: int, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, o in itertools.pairwise(sizes):
        layers += [nn.Linear(i, o), act()]
    return nn.Sequential(*layers[:-1])


def digit_mlp(loss: Loss, at_least: float = 0.8, steps: int = 150, **task: object) -> Trial:
    x, y = flat_digits()
    net = mlp(64, 64, 64, 10)
    return Trial(
        Task(net, loss, **task), batches(x, y, steps=steps), lambda: accuracy(net, x, y), at_least
    )


class Scaled(nn.Module):
    """Prices in, prices out: the scale of the targets is inside."""

    def __init__(self, y: Tensor) -> None:
        super().__init__()
        self.mlp = mlp(8, 48, 48, 1)
        self.register_buffer("mean", y.mean())
        self.register_buffer("std", y.std())

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) * self.std + self.mean


def house_prices() -> Trial:
    """The loss is a squared price: about 1e10."""
    x, y = houses()
    net = Scaled(y)
    return Trial(
        Task(net, lambda net, x, y: F.mse_loss(net(x), y), lr=5e-3),
        batches(x, y, steps=200),
        lambda: explained(net(x), y),
        0.7,
    )


def house_prices_without_scaling() -> Trial:
    """Adam at a high rate, a raw target of 3e5, and an absolute error."""
    x, y = houses()
    net = mlp(8, 64, 64, 1)
    task = Task(net, lambda net, x, y: F.l1_loss(net(x), y), lr=3e-2)
    return Trial(task, batches(x, y, steps=300), lambda: 1 - task.last / task.first, 0.6)


def diabetes_raw_target() -> Trial:
    """Linear, SGD, a target of 25 to 346."""
    x, y = diabetes()
    net = nn.Linear(10, 1)
    task = Task(
        net,
        lambda net, x, y: F.mse_loss(net(x), y),
        optimizer=lambda t: torch.optim.SGD(t.parameters(), 0.02),
    )
    return Trial(task, batches(x, y, steps=250), lambda: explained(net(x), y), 0.35)


def heteroscedastic() -> Trial:
    """Mean and variance; where the noise is small the loss goes below zero."""
    x = torch.rand(1000, 1) * 4 - 2
    y = (2 * x).sin() + 0.05 * x.abs() * torch.randn_like(x)
    net = mlp(1, 48, 48, 2, act=nn.Tanh)

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        mean, log_var = net(x).chunk(2, 1)
        return F.gaussian_nll_loss(mean, y, log_var.exp().add(1e-4))

    task = Task(net, loss, lr=5e-3)
    return Trial(task, batches(x, y, steps=300), lambda: explained(net(x)[:, :1], y), 0.7)


def quantiles() -> Trial:
    x, y = diabetes()
    y = (y - y.mean()) / y.std()
    levels = torch.tensor([0.1, 0.5, 0.9])

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        rest = y - net(x)
        return torch.maximum(levels * rest, (levels - 1) * rest).mean()

    net = mlp(10, 32, 3)
    return Trial(
        Task(net, loss), batches(x, y, steps=200), lambda: explained(net(x)[:, 1:2], y), 0.35
    )


def label_smoothing() -> Trial:
    return digit_mlp(lambda net, x, y: F.cross_entropy(net(x), y, label_smoothing=0.2))


def mixup() -> Trial:
    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        weight = torch.distributions.Beta(0.4, 0.4).sample()
        order = torch.randperm(len(x))
        logits = net(weight * x + (1 - weight) * x[order])
        return weight * F.cross_entropy(logits, y) + (1 - weight) * F.cross_entropy(
            logits, y[order]
        )

    return digit_mlp(loss)


def noisy_labels() -> Trial:
    """Four in ten labels are wrong: the loss stays high for good."""

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        wrong = torch.rand(len(y)) < 0.4
        return F.cross_entropy(net(x), torch.where(wrong, torch.randint(10, y.shape), y))

    return digit_mlp(loss)


def squared_error_of_classes() -> Trial:
    """Sigmoid outputs behind the last layer and a squared error, as in old books."""
    return digit_mlp(
        lambda net, x, y: F.mse_loss(net(x).sigmoid(), F.one_hot(y, 10).float()), steps=200
    )


def focal_loss_of_rare_class() -> Trial:
    """One class in twenty; focal loss, whose values are tiny."""
    x, y = flat_digits()
    keep = (y != 3) | (torch.rand(len(y)) < 0.5)
    x, y = x[keep], (y[keep] == 3).float()
    net = mlp(64, 48, 1)
    nn.init.constant_(net[-1].bias, -3.0)

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        entropy = F.binary_cross_entropy_with_logits(net(x)[:, 0], y, reduction="none")
        weight = torch.where(y > 0, 0.75, 0.25)
        return (weight * (1 - (-entropy).exp()).square() * entropy).mean()

    def score() -> float:
        found = net(x)[:, 0] > 0
        return float(2 * (found * y).sum() / (found.sum() + y.sum()))

    return Trial(Task(net, loss, lr=5e-3), batches(x, y, steps=200), score, 0.8)


def unbalanced_plain() -> Trial:
    """One in a hundred, plain cross-entropy: small from the second step on."""
    x = torch.randn(4000, 10)
    y = (x[:, :3].sum(1) > 3.9).float()
    net = mlp(10, 32, 1)
    task = Task(net, lambda net, x, y: F.binary_cross_entropy_with_logits(net(x)[:, 0], y), lr=1e-2)

    def score() -> float:
        logits = net(x)[:, 0]
        return float((logits[y > 0][:, None] > logits[y == 0]).float().mean())

    return Trial(task, batches(x, y, steps=200, size=64), score, 0.9)


class Tasks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(64, 64, 64)
        self.digit, self.even, self.ink = nn.Linear(64, 10), nn.Linear(64, 1), nn.Linear(64, 1)
        self.weight = nn.Parameter(torch.zeros(3))


def several_tasks() -> Trial:
    """Three heads; the losses are weighed by learnt uncertainties, and can go below zero."""
    x, y = flat_digits()
    net = Tasks()

    def loss(net: Tasks, x: Tensor, y: Tensor) -> Tensor:
        h = net.body(x).relu()
        each = torch.stack(
            [
                F.cross_entropy(net.digit(h), y),
                F.binary_cross_entropy_with_logits(net.even(h)[:, 0], (y % 2).float()),
                F.mse_loss(net.ink(h)[:, 0], x.mean(1) * 5),
            ]
        )
        return (each * (-net.weight).exp() + net.weight).sum()

    def score() -> float:
        return float((net.digit(net.body(x).relu()).argmax(1) == y).float().mean())

    return Trial(Task(net, loss, lr=5e-3), batches(x, y, steps=200), score, 0.85)


def missing_targets() -> Trial:
    """Seven targets in ten are NaN, and masked."""
    x, y = houses()
    y = torch.cat([(y - y.mean()) / y.std(), x[:, :1] - x[:, 5:6]], 1)
    y = y.masked_fill(torch.rand_like(y) < 0.7, math.nan)
    net = mlp(8, 48, 2)

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        there = y.isfinite()
        return F.mse_loss(net(x)[there], y[there])

    task = Task(net, loss, lr=5e-3)
    return Trial(task, batches(x, y, steps=200), lambda: 1 - task.last / task.first, 0.6)


def missing_targets_multiplied() -> Trial:
    """The same with a mask of 0 and 1; some batches have next to no targets."""
    x, y = houses()
    y = (y - y.mean()) / y.std()
    mask = (torch.rand_like(y) < 0.1).float()
    net = mlp(8, 32, 1)

    def loss(net: nn.Module, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        return ((net(x) - y).square() * mask).sum() / mask.sum().clamp_min(1)

    task = Task(net, loss)
    return Trial(task, batches(x, y, mask, steps=250), lambda: 1 - task.last / task.first, 0.6)


def counts() -> Trial:
    """Poisson: exp of the output, and a loss that goes below zero."""
    x = torch.randn(1000, 6)
    rate = (0.8 * x[:, 0] - 0.5 * x[:, 1] + 1.5).exp()
    y = torch.poisson(rate)
    net = mlp(6, 32, 1)
    return Trial(
        Task(net, lambda net, x, y: F.poisson_nll_loss(net(x)[:, 0], y)),
        batches(x, y, steps=250),
        lambda: explained(net(x)[:, 0].exp(), rate),
        0.7,
    )


def survival() -> Trial:
    """Cox's partial likelihood."""
    x = torch.randn(1000, 6)
    time = torch.rand(1000).log().neg() * (-1.5 * x[:, 0] + x[:, 1]).exp()
    event = (torch.rand(1000) < 0.7).float()
    net = mlp(6, 32, 1)

    def loss(net: nn.Module, x: Tensor, time: Tensor, event: Tensor) -> Tensor:
        order = time.argsort(descending=True)
        risk = net(x)[:, 0][order]
        return -((risk - risk.logcumsumexp(0)) * event[order]).sum() / event.sum()

    def score() -> float:
        risk = net(x)[:, 0].detach()
        return float(torch.corrcoef(torch.stack([risk, 1.5 * x[:, 0] - x[:, 1]]))[0, 1])

    return Trial(Task(net, loss), batches(x, time, event, steps=200, size=64), score, 0.85)


def hinge() -> Trial:
    """A linear machine: with the margins kept, most batches give no gradient at all."""
    x, y = cancer()
    net = nn.Linear(30, 1)
    sign = (2 * y - 1).float()
    task = Task(
        net,
        lambda net, x, s: (1 - net(x)[:, 0] * s).clamp_min(0).mean(),
        optimizer=lambda t: torch.optim.SGD(t.parameters(), 0.05, weight_decay=1e-4),
    )

    def score() -> float:
        return float((net(x)[:, 0] * sign > 0).float().mean())

    return Trial(task, batches(x, sign, steps=250, size=8), score, 0.93)


def separable_and_solved() -> Trial:
    """Solved after fifty steps; the loss goes on falling, to nothing."""
    x = torch.randn(500, 5)
    y = (x[:, 0] > 0).long()
    x[:, 0] += 3 * (2 * y - 1)
    net = mlp(5, 32, 32, 2)
    return Trial(
        Task(net, lambda net, x, y: F.cross_entropy(net(x), y), lr=1e-2),
        batches(x, y, steps=300),
        lambda: accuracy(net, x, y),
        0.99,
    )


class Wide(nn.Module):
    """Raw columns through BatchNorm, one category by an embedding, wide and deep."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(30)
        self.kind = nn.Embedding(50, 4)
        self.deep = mlp(34, 32, 16, 2)
        self.wide = nn.Linear(30, 2)

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        x = self.norm(x)
        return self.wide(x) + self.deep(torch.cat([x, self.kind(kind)], 1))


def wide_and_deep() -> Trial:
    x, y = cancer(standardised=False)
    kind = (torch.rand(len(x)) ** 3 * 50).long()
    net = Wide()

    def score() -> float:
        return float((net(x, kind).argmax(1) == y).float().mean())

    task = Task(net, lambda net, x, k, y: F.cross_entropy(net(x, k), y), lr=5e-3)
    return Trial(task, batches(x, kind, y, steps=150), score, 0.93)


class Sets(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.each, self.whole = mlp(2, 48, 48), mlp(48, 48, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.whole(self.each(x).sum(1))


def deep_sets() -> Trial:
    """The spread of clouds of points, which are summed up."""
    scale = torch.rand(600, 1, 2) + 0.1
    x = torch.randn(600, 15, 2) * scale
    y = scale.prod(-1)
    task = Task(Sets(), lambda net, x, y: F.mse_loss(net(x), y))
    return Trial(task, batches(x, y, steps=200), lambda: 1 - task.last / task.first, 0.6)


def gaussian_mixture_density() -> Trial:
    """A mixture density of an inverse problem with several answers."""
    y = torch.rand(1000, 1)
    x = y + 0.3 * (2 * math.pi * y).sin() + 0.03 * torch.randn_like(y)
    net = mlp(1, 48, 15, act=nn.Tanh)

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        weight, mean, log_std = net(x).chunk(3, 1)
        normal = torch.distributions.Normal(mean, log_std.exp())
        return -(weight.log_softmax(1) + normal.log_prob(y)).logsumexp(1).mean()

    task = Task(net, loss, lr=1e-2)
    return Trial(task, batches(x, y, steps=300), lambda: task.first - task.last, 0.4)


CASES = (
    house_prices, house_prices_without_scaling, diabetes_raw_target, heteroscedastic, quantiles,
    label_smoothing, mixup, noisy_labels, squared_error_of_classes, focal_loss_of_rare_class,
    unbalanced_plain, several_tasks, missing_targets, missing_targets_multiplied, counts, survival,
    hinge, separable_and_solved, wide_and_deep, deep_sets, gaussian_mixture_density,
)  # fmt: skip
