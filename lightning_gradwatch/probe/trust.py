"""Whether `.grad` is the gradient: some keep it elsewhere, or leave only a piece of it there.

A norm of such a piece looks like any other number. Where we cannot vouch for it, none is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from lightning_gradwatch.probe.sharded import is_sharded

DEEPSPEED = "DeepSpeed keeps gradients inside its engine, in buffers and pieces of its own"
FSDP1 = (
    "FSDP1 keeps gradients as pieces of flat parameters. Use FSDP2 (ModelParallelStrategy with "
    "fully_shard), of which whole tensors are measured"
)


def untrusted(module: nn.Module, optimizers: Sequence[Any]) -> str:
    """Say why the norms of these parameters' gradients would not be true; "" if they are.

    Args:
        module: The module that is trained, with its wrappers.
        optimizers: Its optimizers.
    """
    kinds = {type(child).__name__ for child in module.modules()}
    if "FullyShardedDataParallel" in kinds:
        return FSDP1
    own = [type(part).__name__ for part in (module, *optimizers)]
    parameters = list(module.parameters())
    if any(n.startswith("DeepSpeed") for n in own) or any(hasattr(p, "ds_id") for p in parameters):
        return DEEPSPEED
    ours = {id(p) for p in parameters}
    for optimizer in optimizers:
        if type(optimizer).__module__.startswith("torch.optim"):
            continue  # makes no copies: somebody gave it those of another model, which is `stalled`
        held = [p for group in optimizer.param_groups for p in group["params"]]
        # After a validation FSDP2 shows gathered parameters, until the next backward pass.
        if held and ours.isdisjoint(map(id, held)) and not any(map(is_sharded, held)):
            return (
                f"{type(optimizer).__name__} holds no parameter of the model, but copies of its "
                "own, whose gradients belong to no layer"
            )
    return ""
