"""Norms of gradients that are spread over processes (DTensor: FSDP2, tensor parallel).

Each process holds a shard; the norm of the whole needs the powers of all. One vector is reduced,
whatever the number of parameters: once where the mesh has one dimension, and once more for each
further dimension that splits anything. Replicated dimensions are not summed.

Every process must reduce the same vectors in the same order, or the others wait for ever. So the
list is made of the parameters and not of their gradients: one without a gradient on this process
takes part with zero. And a process whose reading failed goes on taking part, saying so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_gradwatch.probe.host import laid_out, widen
from lightning_gradwatch.sample import Floats


def is_sharded(tensor: Tensor | None) -> bool:
    """Whether a tensor is a DTensor, without importing what most runs never need."""
    return tensor is not None and hasattr(tensor, "device_mesh") and hasattr(tensor, "to_local")


class OtherRankFailed(RuntimeError):
    """Another process cannot go on, so that nothing true can be said here either."""


class ShardedNorms:
    """Whole-tensor norms of the sharded gradients of one optimizer.

    Args:
        spread: Every sharded parameter the optimizer holds, with or without gradient, in the same
            order on every process, each with its column.
        norm_type: p > 0, or `inf`.
    """

    def __init__(self, spread: Sequence[tuple[nn.Parameter, int]], norm_type: float) -> None:
        self.spread = spread
        self._p = norm_type
        self._parameters: list[Any] = [parameter for parameter, _ in spread]
        self._device = _device_of(self._parameters[0])
        self._there: tuple[tuple[bool, ...], Tensor] | None = None
        places: dict[Any, list[int]] = {}
        for i, parameter in enumerate(self._parameters):
            for dim, placement in enumerate(parameter.placements):
                if not placement.is_replicate():
                    places.setdefault(parameter.device_mesh.get_group(dim), []).append(i)
        count = len(spread)
        self._stages: list[tuple[Any, Tensor | None]] = [
            (group, None if len(of) == count else self._entries(of, count))
            for group, of in places.items()
        ]

    def _entries(self, of: list[int], count: int) -> Tensor:
        """Places in the vector of some parameters, and of the number of failures."""
        return torch.tensor([*of, *(count + i for i in of), 2 * count], device=self._device)

    def take_part(self, failed: bool = False) -> Tensor:
        """Reduce over all processes; a collective.

        Args:
            failed: This process has no gradients to offer, and lets the others know.

        Returns:
            A vector on the device, shape (2 n + 1,) for n parameters: powers summed over all shards
            (or maxima), how many processes have a gradient, how many have failed.
        """
        count = len(self._parameters)
        vector = torch.zeros(2 * count + 1, dtype=torch.float64, device=self._device)
        if failed:
            vector[-1] = 1.0
        else:
            vector[:count] = torch.stack([self._power(p) for p in self._parameters])
            vector[count:-1] = self._presence()
        operation = dist.ReduceOp.MAX if math.isinf(self._p) else dist.ReduceOp.SUM
        for group, places in self._stages:
            part = vector if places is None else vector[places]
            dist.all_reduce(part, op=operation, group=group)
            if places is not None:
                vector[places] = part
        return vector

    def _presence(self) -> Tensor:
        """Which parameters have a gradient here; sent to the device only when that has changed."""
        there = tuple(p.grad is not None for p in self._parameters)
        if self._there is None or self._there[0] != there:
            has = [float(here) for here in there]
            self._there = (there, laid_out(has, torch.float64, self._device))
        return self._there[1]

    def _power(self, parameter: Any) -> Tensor:
        """Power sum of the local shard (or its maximum), in float64."""
        grad: Any = parameter.grad
        if grad is None:
            return torch.zeros((), dtype=torch.float64, device=self._device)
        if grad.placements != parameter.placements:
            # A sum over processes that is still to be made (Partial). Only we look at the result:
            # training is left to make it where it would without us.
            grad = grad.redistribute(placements=parameter.placements)
        local: Tensor = grad.to_local().detach()
        if not local.numel():  # zero is also the least of all absolute values
            return torch.zeros((), dtype=torch.float64, device=self._device)
        real = local.abs() if local.is_complex() else local
        norm: Tensor = torch.linalg.vector_norm(widen(real.reshape(-1)), self._p)
        return (norm if math.isinf(self._p) else norm**self._p).to(self._device, torch.float64)

    def joined(self, vector: Tensor, norm: Tensor) -> Tensor:
        """Return the norm over all sharded gradients and `norm`, on the device, shape (1,).

        NaN if a process has failed.
        """
        powers = vector[: len(self._parameters)].to(norm.device)
        if not math.isinf(self._p):
            powers = powers ** (1.0 / self._p)
        whole: Tensor = torch.linalg.vector_norm(
            torch.cat([powers, norm.to(powers.dtype)]), self._p
        )
        return torch.where(vector[-1:].to(norm.device) > 0, math.nan, whole.reshape(1))

    def result(self, vector: Floats) -> tuple[list[int], Floats]:
        """Return columns and norms of the parameters for which any process has a gradient.

        Args:
            vector: What `take_part` returned, on the host.

        Raises:
            OtherRankFailed: what was added up is not the whole.
        """
        count = len(self._parameters)
        if vector[-1] > 0:
            raise OtherRankFailed("gradients could not be read on another rank")
        there = np.flatnonzero(vector[count:-1] > 0)
        powers = vector[there]
        norms = powers if math.isinf(self._p) else powers ** (1.0 / self._p)
        return [self.spread[int(i)][1] for i in there], norms


def _device_of(parameter: Any) -> torch.device:
    """Where the mesh communicates: not the parameter's device if that was sent to the host."""
    device: torch.device = parameter.to_local().device
    kind = parameter.device_mesh.device_type
    return device if device.type == kind else torch.device(kind, torch.cuda.current_device())
