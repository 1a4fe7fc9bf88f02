"""What stands behind the wrappers of Fabric, DDP and others, and the ranks that train together."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn


def inner_module(model: nn.Module) -> nn.Module:
    """Return the user's own module, so that names are those that the user gave.

    Example:
        >>> inner_module(torch.nn.DataParallel(torch.nn.Linear(2, 1)))
        Linear(in_features=2, out_features=1, bias=True)
    """
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while isinstance(model, parallel) or type(model).__name__ == "_FabricModule":
        model = cast(nn.Module, model.module)
    return model


def inner_optimizer(optimizer: Any) -> Any:
    """Return the optimizer that steps: a gradient scaler knows it by its identity."""
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    return optimizer


def ranks() -> tuple[int, int]:
    """Return this process's rank and how many there are, as torch.distributed says."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def added_up(numbers: list[float]) -> list[float]:
    """Add each number up over all ranks; a collective where there are several."""
    if ranks()[1] == 1:
        return numbers
    nccl = "nccl" in dist.get_backend()
    device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
    vector = torch.tensor(numbers, dtype=torch.float32, device=device)
    dist.all_reduce(vector)
    return [float(v) for v in vector.tolist()]


def said_of_ranks(count: int) -> dict[str, str]:
    """Return what a report says of several ranks; nothing of one."""
    if count == 1:
        return {}
    return {"ranks": f"{count} (loss and flow through modules: of rank 0 and its data)"}
