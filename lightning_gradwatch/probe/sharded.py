"""Norms of gradients that are spread over processes (DTensor: FSDP2, tensor parallel).

Each process holds a shard; the norm of the whole needs the powers of all. One vector per device
mesh is reduced, whatever the number of parameters, and every process reduces the same vectors in
the same order: parameters without a gradient on this process take part with zero, or the others
would wait for ever. Replicated dimensions are not summed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_gradwatch.probe.host import laid_out, widen


def is_sharded(tensor: Tensor | None) -> bool:
    """Whether a tensor is a DTensor, without importing what most runs never need."""
    return tensor is not None and hasattr(tensor, "device_mesh") and hasattr(tensor, "to_local")


class ShardedNorms:
    """Whole-tensor norms of the sharded gradients of one optimizer step.

    Args:
        spread: Every sharded parameter the optimizer holds, with or without gradient, in the same
            order on every process, each with its column.
        norm_type: p > 0, or `inf`.

    Attributes:
        columns: Their columns.
        vectors: Two vectors for each mesh, on the device: powers summed over all shards (or
            maxima), and how many processes have a gradient. To be fetched and given to `result`.
    """

    def __init__(self, spread: Sequence[tuple[nn.Parameter, int]], norm_type: float) -> None:
        self._p = norm_type
        self.columns = [column for _, column in spread]
        parameters = [parameter for parameter, _ in spread]
        self._places: list[list[int]] = []
        self.vectors: list[Tensor] = []
        groups: dict[tuple[Any, tuple[int, ...]], list[int]] = {}
        for i, parameter in enumerate(parameters):
            groups.setdefault(_spread(parameter), []).append(i)
        for (mesh, dims), places in groups.items():
            powers = torch.stack([self._power(parameters[i]) for i in places])
            has = [float(parameters[i].grad is not None) for i in places]
            there = laid_out(has, powers.dtype, powers.device)
            vector = torch.cat([powers, there])
            operation = dist.ReduceOp.MAX if math.isinf(norm_type) else dist.ReduceOp.SUM
            for dim in dims:
                dist.all_reduce(vector, op=operation, group=mesh.get_group(dim))
            self._places.append(places)
            self.vectors.append(vector)

    def _power(self, parameter: nn.Parameter) -> Tensor:
        """Power sum of the local shard (or its maximum), in float64."""
        grad = parameter.grad
        tensor: Any = grad if grad is not None else parameter
        local = tensor.to_local()
        if grad is None or not local.numel():
            # An empty shard adds nothing, and zero is also the least of all absolute values.
            return torch.zeros((), dtype=torch.float64, device=local.device)
        norm: Tensor = torch.linalg.vector_norm(widen(local.reshape(-1)), self._p)
        return norm if math.isinf(self._p) else norm**self._p

    def joined(self, norm: Tensor) -> Tensor:
        """Return the norm over all sharded gradients and `norm`, on the device, shape (1,)."""
        halves = [
            vector[: len(places)] for places, vector in zip(self._places, self.vectors, strict=True)
        ]
        powers = torch.cat([half.to(norm.device) for half in halves])
        if not math.isinf(self._p):
            powers = powers ** (1.0 / self._p)
        whole: Tensor = torch.linalg.vector_norm(
            torch.cat([powers, norm.to(powers.dtype)]), self._p
        )
        return whole.reshape(1)

    def result(self, fetched: Sequence[Any]) -> list[tuple[int, float | None]]:
        """Return column and norm of each parameter; None where no process has a gradient.

        Args:
            fetched: `vectors`, on the host.
        """
        norms: list[float | None] = [None] * len(self.columns)
        for places, vector in zip(self._places, fetched, strict=True):
            for j, i in enumerate(places):
                if vector[len(places) + j] > 0:
                    power = float(vector[j])
                    norms[i] = power if math.isinf(self._p) else power ** (1.0 / self._p)
        return list(zip(self.columns, norms, strict=True))


def _spread(parameter: nn.Parameter) -> tuple[Any, tuple[int, ...]]:
    """Return the mesh and those of its dimensions over which the gradient is split."""
    tensor: Any = parameter.grad if parameter.grad is not None else parameter
    partial = [type(p).__name__.endswith("Partial") for p in tensor.placements]
    if any(partial):
        from torch.distributed.tensor import Replicate

        whole = [Replicate() if hidden else p for hidden, p in zip(partial, tensor.placements)]  # noqa: B905  # one placement for each
        parameter.grad = tensor = tensor.redistribute(placements=whole)
    dims = tuple(i for i, p in enumerate(tensor.placements) if p.is_shard())
    return tensor.device_mesh, dims
