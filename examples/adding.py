"""The adding problem: add the two marked numbers of a long sequence, and forget all others.

Each time step holds a number between 0 and 1 and a mark; two steps are marked, one in the first
and one in the second half, and the target is the sum of their numbers. Nothing but memory solves
it: always answering 1 leaves a mean squared error of 1/6 (R² = 0). It is experiment 4 of Hochreiter
and Schmidhuber (1997), in the form of Le et al. (2015).

References:
    - Hochreiter and Schmidhuber (1997), Long short-term memory
    - Le, Jaitly and Hinton (2015), https://arxiv.org/abs/1504.00941
"""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, RandomSampler, TensorDataset


def dataset(samples: int, length: int, seed: int) -> TensorDataset:
    """Return sequences (samples, length, 2) and their targets (samples, 1).

    Raises:
        ValueError: `length` is below two.

    Example:
        >>> x, y = dataset(3, length=10, seed=0).tensors
        >>> bool(torch.allclose((x[..., 0] * x[..., 1]).sum(1, keepdim=True), y))
        True
    """
    if length < 2:
        raise ValueError(f"length must be at least 2 (two numbers are marked), got {length}")
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(samples, length, generator=generator)
    first = torch.randint(0, length // 2, (samples,), generator=generator)
    second = torch.randint(length // 2, length, (samples,), generator=generator)
    marks = torch.zeros(samples, length)
    rows = torch.arange(samples)
    marks[rows, first] = 1.0
    marks[rows, second] = 1.0
    total = numbers[rows, first] + numbers[rows, second]
    return TensorDataset(torch.stack([numbers, marks], dim=-1), total[:, None])


def loaders(length: int, batch_size: int = 64) -> tuple[DataLoader, DataLoader]:
    """Return training batches, 25 in an epoch, and the validation set as one batch."""
    train, val = dataset(50 * batch_size, length, seed=0), dataset(500, length, seed=1)
    half = RandomSampler(train, num_samples=25 * batch_size)
    return (
        DataLoader(train, batch_size=batch_size, sampler=half),
        DataLoader(val, batch_size=len(val)),
    )
