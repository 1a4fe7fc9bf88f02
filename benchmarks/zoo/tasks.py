"""Small data sets, whole in memory, each knowing the loss of its best constant predictor."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.zoo.config import Config


@dataclass(frozen=True)
class Task:
    """All of a data set.

    Attributes:
        x: Inputs, one row a sample.
        y: Targets.
        kind: "class", "regression", "text" (a class for every position) or "gan".
        outputs: Outputs of the network.
        inputs: Features of a row, tokens of the vocabulary, or channels.
    """

    x: Tensor
    y: Tensor
    kind: str
    outputs: int
    inputs: int


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _blobs(classes: int, features: int, spread: float, seed: int) -> Task:
    g = _generator(seed)
    centres = torch.randn(classes, features, generator=g)
    y = torch.arange(512) % classes
    x = centres[y] + spread * torch.randn(512, features, generator=g)
    return Task((x - x.mean(0)) / x.std(0), y, "class", classes, features)


def _spirals(arms: int, turns: float, seed: int) -> Task:
    g = _generator(seed)
    y = torch.arange(480) % arms
    radius = torch.rand(480, generator=g).sqrt()
    angle = 2 * math.pi * (turns * radius + y / arms)
    x = torch.stack([radius * angle.cos(), radius * angle.sin()], 1) * 1.7
    return Task(x + 0.02 * torch.randn(480, 2, generator=g), y, "class", arms, 2)


def _digits(count: int, image: bool) -> Task:
    from sklearn.datasets import load_digits

    data = load_digits()
    x = torch.tensor(data.data[:count], dtype=torch.float32) / 8 - 0.6
    y = torch.tensor(data.target[:count])
    return Task(x.reshape(-1, 1, 8, 8) if image else x, y, "class", 10, 1 if image else 64)


def _bars(seed: int) -> Task:
    """Horizontal, vertical or diagonal bars in noise."""
    g = _generator(seed)
    x = 0.4 * torch.randn(384, 1, 8, 8, generator=g)
    y = torch.arange(384) % 4
    at = torch.randint(1, 7, (384,), generator=g)
    for i in range(384):
        kind, k = int(y[i]), int(at[i])
        if kind == 0:
            x[i, 0, k, :] += 1.5
        elif kind == 1:
            x[i, 0, :, k] += 1.5
        else:
            eye = torch.eye(8) if kind == 2 else torch.eye(8).flip(1)
            x[i, 0] += 1.5 * eye.roll(k - 4, 1)
    return Task(x, y, "class", 4, 1)


def _function(features: int, seed: int, outputs: int = 1) -> Task:
    g = _generator(seed)
    x = torch.randn(512, features, generator=g)
    a = torch.randn(features, 3 * outputs, generator=g) / math.sqrt(features)
    z = x @ a
    y = (1.5 * z[:, :outputs]).sin() + z[:, outputs : 2 * outputs] * z[:, 2 * outputs :].tanh()
    return Task(x, (y - y.mean(0)) / y.std(0), "regression", outputs, features)


def _friedman(seed: int) -> Task:
    g = _generator(seed)
    u = torch.rand(512, 6, generator=g)
    y = 10 * (math.pi * u[:, 0] * u[:, 1]).sin() + 20 * (u[:, 2] - 0.5) ** 2
    y = (y + 10 * u[:, 3] + 5 * u[:, 4])[:, None]
    return Task((u - 0.5) * 3.46, (y - y.mean()) / y.std(), "regression", 1, 6)


def _manifold(features: int, rank: int, seed: int) -> Task:
    g = _generator(seed)
    z = torch.randn(512, rank, generator=g)
    x = (z @ torch.randn(rank, features, generator=g)).tanh()
    x = (x - x.mean(0)) / x.std(0)
    return Task(x, x, "regression", features, features)


def _recall(length: int, classes: int, seed: int, samples: int = 384) -> Task:
    """The first symbol, after noise, is what is asked for at the end."""
    g = _generator(seed)
    y = torch.arange(samples) % classes
    x = torch.zeros(samples, length, classes + 1)
    x[:, :, classes] = 0.5 * torch.randn(samples, length, generator=g)
    x[torch.arange(samples), 0, y] = 2.0
    return Task(x, y, "class", classes, classes + 1)


def _adding(length: int, seed: int) -> Task:
    """Two marked numbers, one in each half, have to be added."""
    g = _generator(seed)
    value = torch.rand(512, length, generator=g) * 2 - 1
    mark = torch.zeros(512, length)
    rows, half = torch.arange(512), length // 2
    mark[rows, torch.randint(0, half, (512,), generator=g)] = 1
    mark[rows, torch.randint(half, length, (512,), generator=g)] = 1
    y = (value * mark).sum(1, keepdim=True)
    return Task(torch.stack([value, mark], 2), y / y.std(), "regression", 1, 2)


def _waves(length: int, seed: int) -> Task:
    """How fast does the sequence oscillate."""
    g = _generator(seed)
    y = torch.arange(384) % 3
    phase = torch.rand(384, 1, generator=g) * 6.28
    time = torch.arange(length)[None] / length
    x = ((1.5 + 2.0 * y[:, None]) * 6.28 * time + phase).sin()
    return Task((x + 0.2 * torch.randn(384, length, generator=g))[..., None], y, "class", 3, 1)


def _text(words: int, length: int, seed: int) -> Task:
    """Random words of a small dictionary: the next character, given those before."""
    g = _generator(seed)
    alphabet = 14
    book = [
        torch.randint(1, alphabet, (int(n),), generator=g).tolist()
        for n in torch.randint(3, 6, (words,), generator=g)
    ]
    rows = 160
    stream: list[int] = []
    while len(stream) < rows * (length + 1):
        stream += [*book[int(torch.randint(0, words, (1,), generator=g))], 0]
    table = torch.tensor(stream[: rows * (length + 1)]).reshape(rows, length + 1)
    return Task(table[:, :-1].contiguous(), table[:, 1:].contiguous(), "text", alphabet, alphabet)


def _bag(vocabulary: int, seed: int) -> Task:
    """Bags of words by Zipf's law: most rows of the embedding are hardly ever used."""
    g = _generator(seed)
    weights = 1 / (1 + torch.arange(vocabulary, dtype=torch.float32))
    y = torch.arange(512) % 4
    tilt = torch.randn(4, vocabulary, generator=g).mul(1.2).exp()
    rows = [torch.multinomial(weights * tilt[k], 12, True, generator=g) for k in y.tolist()]
    return Task(torch.stack(rows), y, "class", 4, vocabulary)


def _points(modes: int, seed: int) -> Task:
    """Points on a ring of clusters, to be imitated."""
    g = _generator(seed)
    angle = 2 * math.pi * (torch.arange(512) % modes) / modes
    x = torch.stack([angle.cos(), 0.6 * angle.sin() + 0.5], 1)
    return Task(x + 0.15 * torch.randn(512, 2, generator=g), x, "gan", 2, 4)


def _table(name: str) -> Task:
    """A real table that scikit-learn brings along, each column standardised."""
    from sklearn import datasets

    data = getattr(datasets, f"load_{name}")()
    x = torch.tensor(data.data, dtype=torch.float32)
    y = torch.tensor(data.target)
    return Task((x - x.mean(0)) / x.std(0), y, "class", int(y.max()) + 1, x.shape[1])


def _moons(noise: float, seed: int) -> Task:
    """Two half-circles that reach into each other."""
    g = _generator(seed)
    y = torch.arange(480) % 2
    angle = math.pi * torch.rand(480, generator=g)
    side = 1.0 - 2.0 * y
    x = torch.stack([side * angle.cos() + y, side * angle.sin() + 0.5 * y], 1)
    x = x + noise * torch.randn(480, 2, generator=g)
    return Task((x - x.mean(0)) / x.std(0), y, "class", 2, 2)


def _arm(seed: int) -> Task:
    """Where the hand of an arm of three joints is, by the joints' angles."""
    g = _generator(seed)
    angles = 1.2 * torch.randn(512, 3, generator=g)
    total = angles.cumsum(1)
    length = torch.tensor([1.0, 0.7, 0.4])
    y = torch.stack([(length * total.cos()).sum(1), (length * total.sin()).sum(1)], 1)
    return Task(angles / 1.2, (y - y.mean(0)) / y.std(0), "regression", 2, 3)


#: Task by name; what is measured on one never depends on the seed of a run.
TASKS: dict[str, Callable[[], Task]] = {
    "blobs": lambda: _blobs(6, 12, 0.55, 1),
    "blobs3": lambda: _blobs(3, 8, 0.6, 2),
    "blobs10": lambda: _blobs(10, 20, 0.6, 3),
    "spirals": lambda: _spirals(2, 0.75, 4),
    "spirals3": lambda: _spirals(3, 0.6, 5),
    "digits": lambda: _digits(640, False),
    "images": lambda: _digits(320, True),
    "bars": lambda: _bars(6),
    "smooth": lambda: _function(4, 7),
    "smooth8": lambda: _function(8, 8, 2),
    "friedman": lambda: _friedman(9),
    "manifold": lambda: _manifold(16, 3, 10),
    "manifold24": lambda: _manifold(24, 4, 11),
    "recall12": lambda: _recall(12, 3, 12),
    "recall20": lambda: _recall(20, 4, 13),
    "recall30": lambda: _recall(30, 3, 14),
    "recall40": lambda: _recall(40, 2, 15, 256),
    "recall60": lambda: _recall(60, 2, 16, 192),
    "adding8": lambda: _adding(8, 17),
    "adding12": lambda: _adding(12, 18),
    "waves": lambda: _waves(16, 19),
    "waves24": lambda: _waves(24, 20),
    "text": lambda: _text(8, 16, 21),
    "text12": lambda: _text(12, 12, 22),
    "bag": lambda: _bag(300, 23),
    "bag600": lambda: _bag(600, 24),
    "ring": lambda: _points(4, 25),
    "ring6": lambda: _points(6, 26),
    "wine": lambda: _table("wine"),
    "cancer": lambda: _table("breast_cancer"),
    "iris": lambda: _table("iris"),
    "moons": lambda: _moons(0.12, 27),
    "blobs5": lambda: _blobs(5, 16, 0.5, 28),
    "spirals4": lambda: _spirals(4, 0.5, 29),
    "smooth6": lambda: _function(6, 30),
    "arm": lambda: _arm(31),
    "manifold12": lambda: _manifold(12, 2, 32),
    "recall16": lambda: _recall(16, 4, 33),
    "recall24": lambda: _recall(24, 2, 34),
    "adding10": lambda: _adding(10, 35),
    "waves20": lambda: _waves(20, 36),
    "text10": lambda: _text(10, 14, 37),
    "bag400": lambda: _bag(400, 38),
    "ring5": lambda: _points(5, 39),
}


@functools.cache
def raw_task(name: str) -> Task:
    """Return a task as it is, without a config's scales."""
    return TASKS[name]()


def task_of(config: Config) -> Task:
    """Return the task with the config's scales on inputs and targets."""
    task = raw_task(config.task)
    x, y = task.x, task.y
    if x.is_floating_point() and task.kind != "gan":
        x = x * config.in_scale + config.in_offset
    if config.arch == "autoencoder":
        y = x
    elif task.kind == "regression":
        y = y * config.target_scale
    return replace(task, x=x, y=y)


def loss_of(task: Task, kind: str, output: Tensor, y: Tensor) -> Tensor:
    """Return the mean loss."""
    if task.kind == "text":
        return F.cross_entropy(output.flatten(0, 1), y.flatten())
    if task.kind == "class":
        if kind == "hinge":
            return F.multi_margin_loss(output, y)
        if kind == "onehot_mse":
            return F.mse_loss(output, F.one_hot(y, task.outputs).to(output.dtype))
        return F.cross_entropy(output, y)
    y = y.to(output.dtype)
    if kind == "huber":
        return F.smooth_l1_loss(output, y)
    if kind == "mae":
        return F.l1_loss(output, y)
    return F.mse_loss(output, y)


def energy_distance(sample: Tensor, data: Tensor) -> Tensor:
    """Return how far two clouds of points are apart; 0 for the same distribution."""
    inner = torch.cdist(sample, sample).mean() + torch.cdist(data, data).mean()
    return 2 * torch.cdist(sample, data).mean() - inner


def constant_loss(task: Task, kind: str) -> float:
    """Return the loss of the best constant predictor, in float64."""
    y = task.y
    if task.kind == "gan":
        data = task.x.double()
        return float(energy_distance(data.mean(0, keepdim=True).expand(len(data), -1), data))
    if task.kind in ("class", "text"):
        counts = torch.bincount(y.flatten(), minlength=task.outputs).double()
        share = counts / counts.sum()
        if kind in ("hinge", "onehot_mse"):
            constant = torch.zeros_like(share) if kind == "hinge" else share
        else:
            constant = share.clamp(min=1e-12).log()
        output = constant.expand(*y.shape, -1)
    else:
        y = y.double()
        centre = y.median(0).values if kind == "mae" else y.mean(0)
        output = centre.expand_as(y)
    return float(loss_of(task, kind, output, y))
