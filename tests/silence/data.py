"""Small real data, and what is made of it: batches by a seed, one a step."""

from __future__ import annotations

import functools
import inspect
import textwrap

import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from torch import Tensor

TEXT_LENGTH = 12000


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """Return 1797 images of 8 x 8 pixels in [0, 1], shape (n, 1, 8, 8), and their classes."""
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(y)


def flat_digits() -> tuple[Tensor, Tensor]:
    """Return the digits as vectors of mean 0 and standard deviation 1."""
    x, y = digits()
    x = x.flatten(1)
    return (x - x.mean()) / x.std(), y


@functools.cache
def text() -> tuple[Tensor, int]:
    """Return the characters of a module of the standard library as numbers, and how many kinds."""
    source = inspect.getsource(textwrap)[:TEXT_LENGTH].lower()
    kinds = sorted(set(source))
    return torch.tensor([kinds.index(c) for c in source]), len(kinds)


def lines(steps: int, size: int = 16, length: int = 32) -> list[tuple[Tensor, Tensor]]:
    """Return pieces of the text, and the same one character later."""
    ids, _ = text()
    generator = torch.Generator().manual_seed(1)
    out = []
    for _ in range(steps):
        starts = torch.randint(len(ids) - length - 1, (size, 1), generator=generator)
        at = starts + torch.arange(length)
        out.append((ids[at], ids[at + 1]))
    return out


def batches(*tensors: Tensor, steps: int, size: int = 32) -> list[tuple[Tensor, ...]]:
    """Return shuffled batches, epoch after epoch, until there are enough."""
    generator = torch.Generator().manual_seed(1)
    order = torch.empty(0, dtype=torch.long)
    while len(order) < steps * size:
        order = torch.cat([order, torch.randperm(len(tensors[0]), generator=generator)])
    return [tuple(t[i] for t in tensors) for i in order[: steps * size].split(size)]


@functools.cache
def diabetes() -> tuple[Tensor, Tensor]:
    """Return 442 patients by 10 standardised numbers, and how the illness went (25 to 346)."""
    x, y = load_diabetes(return_X_y=True, scaled=True)
    x = torch.tensor(x, dtype=torch.float32) * 21
    return x, torch.tensor(y, dtype=torch.float32)[:, None]


@functools.cache
def cancer(standardised: bool = True) -> tuple[Tensor, Tensor]:
    """Return 569 tumours by 30 numbers, raw ones up to 4000, and whether they are benign."""
    x, y = load_breast_cancer(return_X_y=True)
    x = torch.tensor(x, dtype=torch.float32)
    if standardised:
        x = (x - x.mean(0)) / x.std(0)
    return x, torch.tensor(y)


def houses(n: int = 512) -> tuple[Tensor, Tensor]:
    """Return made-up houses by 8 standardised numbers, and prices of about 3e5."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(n, 8, generator=generator)
    noise = 1e4 * torch.randn(n, generator=generator)
    price = 3e5 + 6e4 * x[:, 0] + 3e4 * x[:, 1] * x[:, 2] + 4e4 * x[:, 3].tanh() + noise
    return x, price[:, None]
