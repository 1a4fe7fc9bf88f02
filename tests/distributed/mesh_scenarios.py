"""Played by four processes: meshes of two dimensions, and more processes than rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from lightning_gradwatch import GradWatch
from lightning_gradwatch.actions import ClipGradNorm
from tests.distributed.models import Model, alone, batches, fit, loader, network, told
from tests.distributed.sharded_scenarios import (
    CLIP,
    bare,
    flat_mesh,
    reductions,
    sharded,
    split,
    strategy,
)


def both(model: Any) -> nn.Module:
    """Split over two processes, and the pieces sharded over two more."""
    net = split(network(), model.device_mesh["tensor_parallel"])
    return sharded(net, model.device_mesh["data_parallel"])


def two_dimensions(place: Path) -> dict[str, Any]:
    """Some parameters are spread over both dimensions, some over one."""
    watch = GradWatch(actions=[ClipGradNorm(CLIP)], reporters=[])
    with reductions() as made:
        fit(
            Model(both), watch, loader(), devices=4, strategy=strategy(2, 2),
            use_distributed_sampler=False,
        )  # fmt: skip
    return told(watch) | {"reductions": made, "truth": alone(batches(), clip=CLIP)}


def replicas_of_shards(place: Path) -> dict[str, Any]:
    """Two copies, each sharded over two processes: copies are not summed."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    return bare(sharded(network(), mesh)) | {"truth": alone(batches())}


def more_processes_than_rows(place: Path) -> dict[str, Any]:
    """The last layer has one row: three processes of four hold nothing of it."""
    return bare(sharded(network(), flat_mesh())) | {"truth": alone(batches())}


SCENARIOS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "two-dimensions": two_dimensions,
    "replicas": replicas_of_shards,
    "empty": more_processes_than_rows,
}
