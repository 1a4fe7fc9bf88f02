"""Runs that end in NaN for no reason of training: the data, the loss, a layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.silence.case import Task, Trial, accuracy
from tests.silence.data import batches, cancer, digits, flat_digits
from tests.silence.healthy.vision import classify, digit_reader
from tests.silence.sick.depth import mlp
from tests.silence.sick.illness import sick


@sick(
    code="nonfinite",
    summary=r"The batch holds NaN: batch\[0\] \(1 of 2,048 values\), at step 40, batch 40",
    cause=r"The data hold values that are not finite: a missing value",
    remedy=r"Clean the data, and let the dataset say so: assert torch\.isfinite\(x\)\.all\(\)\.",
    change={"clean": True},
)
def one_missing_value(clean: bool = False) -> Trial:
    """A single NaN in the fortieth batch."""
    x, y = flat_digits()
    net = mlp([64, 64, 10])
    data = batches(x, y, steps=90)
    if not clean:
        data[40][0][3, 20] = torch.nan
    return Trial(Task(net, classify), data, lambda: accuracy(net, x[:600], y[:600]), 0.8)


@sick(
    code="nonfinite",
    summary=r"The loss turned a finite model output into -?(Inf|NaN) .*: the log of 0",
    cause=r"An argument reached 0 or went below it",
    remedy=r"Keep the argument of log away from 0: torch\.log\(x\.clamp_min\((?P<least>1e-8)\)\), "
    r"or work with logits: F\.log_softmax, F\.binary_cross_entropy_with_logits\.",
)
def log_of_a_probability(least: float = 0.0) -> Trial:
    """Binary cross-entropy written by hand, until a sigmoid rounds to 1."""
    x, y = cancer()
    net = mlp([30, 32, 1]).append(nn.Sigmoid()).append(nn.Flatten(0))

    def log(p: Tensor) -> Tensor:
        return torch.log(p.clamp_min(least) if least else p)

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        p = net(x)
        return -(y * log(p) + (1 - y) * log(1 - p)).mean()

    def score() -> float:
        return float(((net(x) > 0.5) == y).float().mean())

    return Trial(Task(net, loss, lr=0.1), batches(x, y, steps=100), score, 0.9)


@sick(
    code="nonfinite",
    summary=r"in the backward pass .*: the derivative of sqrt at 0 is not finite",
    cause=r"Its slope at 0 is infinite",
    remedy=r"Add an epsilon inside the root: torch\.sqrt\(x \+ (?P<epsilon>1e-8)\), .*",
)
def distance_to_oneself(epsilon: float = 0.0) -> Trial:
    """A Siamese net and its contrastive loss; some pairs hold the same image twice."""
    x, y = flat_digits()
    other = torch.randperm(len(x))
    other[::2] = torch.stack([(y == k).float().multinomial(1)[0] for k in y[::2]])
    other[::300] = torch.arange(len(x))[::300]
    same = (y == y[other]).float()
    net = mlp([64, 64, 16])

    def apart(a: Tensor, b: Tensor) -> Tensor:
        return torch.sqrt((net(a) - net(b)).square().sum(-1) + epsilon)

    def loss(net: nn.Module, a: Tensor, b: Tensor, same: Tensor) -> Tensor:
        d = apart(a, b)
        return (same * d.square() + (1 - same) * F.relu(2 - d).square()).mean()

    def score() -> float:
        return float(((apart(x, x[other]) < 1) == same.bool()).float().mean())

    return Trial(Task(net, loss), batches(x, x[other], same, steps=90), score, 0.85)


class Share(nn.Module):
    """Scales each column of an image to sum 1; empty columns have the sum 0."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.sum(2, keepdim=True) + self.epsilon)


@sick(
    code="nonfinite",
    layers=("net.0",),
    summary=r"Share \(net\.0\) turned finite input into NaN in the forward pass at step 0, "
    r"batch 0: a division",
    cause=r"An argument reached 0 or went below it",
    remedy=r"Keep the divisor away from 0: a / \(b \+ (?P<epsilon>1e-8)\), or .*",
)
def layer_that_divides_by_zero(epsilon: float = 0.0) -> Trial:
    net = nn.Sequential(
        Share(epsilon), nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    return digit_reader(net, 90, 0.6)


class Attention(nn.Module):
    """Softmax written by hand, without taking the largest score away."""

    def __init__(self, width: int, stable: bool) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(8, width) for _ in range(3))
        self.stable = stable

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).mT
        if self.stable:
            return scores.softmax(-1) @ self.value(x)
        weights = scores.exp()
        return (weights / weights.sum(-1, keepdim=True)) @ self.value(x)


@sick(
    code="nonfinite",
    layers=("net.attend",),
    summary=r"Attention \(net\.attend\).* turned finite input into Inf in the forward pass at "
    r"step 0, batch 0: .*scores\.exp\(\)",
    cause=r"The values outgrew what a float can hold",
    remedy=r".*torch\.softmax.*",
    change={"stable": True},
)
def softmax_written_by_hand(stable: bool = False) -> Trial:
    x, y = digits()
    net = nn.Sequential()
    net.attend = Attention(32, stable)
    net.flat = nn.Flatten()
    net.head = nn.Linear(256, 10)
    x = 16 * x[:, 0]
    task = Task(net, classify, lr=3e-3)
    return Trial(task, batches(x, y, steps=90), lambda: accuracy(net, x[:600], y[:600]), 0.6)


class Padded(nn.Module):
    """Attention over what is there of a sequence; of some there is nothing."""

    def __init__(self, zeroed: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(64, 10)
        self.zeroed = zeroed

    def forward(self, x: Tensor, absent: Tensor) -> Tensor:
        if self.zeroed:
            absent = absent & ~absent.all(1, keepdim=True)
        return self.head((x + self.attention(x, x, x, absent)[0]).flatten(1))


@sick(
    code="nonfinite",
    layers=("net.attention",),
    summary=r"net\.attention\) turned .* into NaN in the forward pass at step 5, batch 5",
    cause=r"Some row of the attention mask allows no position at all",
    remedy=r"Let every row of the mask allow one position at least, or zero such rows .*",
    change={"one_at_least": True},
)
def mask_that_allows_nothing(one_at_least: bool = False) -> Trial:
    x, y = digits()
    absent = torch.zeros(len(x), 8, dtype=torch.bool)
    absent[::400] = True
    net = Padded(one_at_least)
    task = Task(net, lambda net, x, absent, y: F.cross_entropy(net(x, absent), y))

    def score() -> float:
        return float((net(x[:500, 0], absent[:500] & False).argmax(-1) == y[:500]).float().mean())

    return Trial(task, batches(x[:, 0], absent, y, steps=90), score, 0.7)


@sick(
    code="nonfinite",
    summary=r"The loss turned a finite model output into NaN in the forward pass at "
    r"step (?P<s>\d+), batch (?P=s): a division by 0",
    cause=r"An argument reached 0 or went below it",
    remedy=r"Keep the divisor away from 0: a / \(b \+ (?P<epsilon>1e-8)\), .*",
)
def masked_mean_of_nothing(epsilon: float = 0.0) -> Trial:
    """A term for the digits seven, which a batch of 32 may be without."""
    x, y = flat_digits()
    net = mlp([64, 64, 10])

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        out, mask = F.cross_entropy(net(x), y, reduction="none"), (y == 7).float()
        return out.mean() + (out * mask).sum() / (mask.sum() + epsilon)

    task = Task(net, loss)
    return Trial(task, batches(x, y, steps=90), lambda: accuracy(net, x[:600], y[:600]), 0.8)


@sick(
    code="nonfinite",
    layers=("net.std",),
    summary=r"net\.std|.*Spread",
    cause=r"Its slope at 0 is infinite",
    remedy=r"Add an epsilon inside the root: torch\.sqrt\(x \+ (?P<epsilon>1e-8)\), .*",
)
def layer_that_divides_by_its_spread(epsilon: float = 0.0) -> Trial:
    """Normalises features over each image's own columns, some of which are constant."""
    x, y = digits()
    net = nn.Sequential()
    net.conv = nn.Conv2d(1, 8, 3, padding=1)
    net.act = nn.ReLU()
    net.std = Spread(epsilon)
    net.flat = nn.Flatten()
    net.head = nn.Linear(64, 10)
    task = Task(net, classify, lr=1e-2)
    return Trial(task, batches(x, y, steps=90), lambda: accuracy(net, x[:600], y[:600]), 0.6)


class Spread(nn.Module):
    """The standard deviation of each column."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(2, keepdim=True)
        return torch.sqrt(x.square().mean(2) + self.epsilon)


CASES = (
    one_missing_value,
    log_of_a_probability,
    distance_to_oneself,
    layer_that_divides_by_zero,
    softmax_written_by_hand,
    mask_that_allows_nothing,
    masked_mean_of_nothing,
    layer_that_divides_by_its_spread,
)
