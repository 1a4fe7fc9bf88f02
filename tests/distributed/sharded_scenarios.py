"""Played by two processes: FSDP2 and tensor parallel, in Lightning and in a bare loop."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from lightning_gradwatch import GradientWatcher, GradWatch
from lightning_gradwatch.actions import ClipGradNorm, SkipStep
from lightning_gradwatch.probe.norms import NormReader
from lightning_gradwatch.probe.probe import Probe
from lightning_gradwatch.probe.sharded import ShardedNorms
from tests.distributed.models import (
    RATE,
    STEPS,
    Model,
    alone,
    batches,
    fit,
    loader,
    mean_square,
    network,
    told,
)

CLIP = 0.3


@contextmanager
def reductions(anyones: bool = False) -> Iterator[list[int]]:
    """Count the all-reduces that we (or anyone) make, and how many numbers each one carries."""
    real, sizes = dist.all_reduce, []

    def counted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if anyones or "lightning_gradwatch" in sys._getframe(1).f_code.co_filename:
            sizes.append(tensor.numel())
        return real(tensor, *args, **kwargs)

    dist.all_reduce = counted
    try:
        yield sizes
    finally:
        dist.all_reduce = real


def sharded(net: nn.Sequential, mesh: Any) -> nn.Sequential:
    for layer in (net[0], net[2], net[4]):
        fully_shard(layer, mesh=mesh)
    fully_shard(net, mesh=mesh)
    return net


def sharded_as_one(net: nn.Sequential, mesh: Any) -> nn.Sequential:
    """All parameters in one group, which stays gathered after a forward pass alone."""
    fully_shard(net, mesh=mesh)
    return net


def split(net: nn.Sequential, mesh: Any) -> nn.Sequential:
    # LayerNorm and the last layer are replicated: theirs must not be summed.
    parallelize_module(net, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    return net


def strategy(data: int, tensor: int) -> ModelParallelStrategy:
    return ModelParallelStrategy(
        data_parallel_size=data, tensor_parallel_size=tensor, process_group_backend="gloo"
    )


KINDS: dict[str, tuple[Callable[[Any], nn.Module], tuple[int, int]]] = {
    "fsdp": (lambda m: sharded(network(), m.device_mesh["data_parallel"]), (2, 1)),
    "one": (lambda m: sharded_as_one(network(), m.device_mesh["data_parallel"]), (2, 1)),
    "tensor": (lambda m: split(network(), m.device_mesh["tensor_parallel"]), (1, 2)),
}


def in_trainer(
    kind: str, clip: str = "", validated: bool = False, **arguments: Any
) -> Callable[[Path], dict[str, Any]]:
    def scenario(place: Path) -> dict[str, Any]:
        configure, sizes = KINDS[kind]
        actions = [ClipGradNorm(CLIP)] if clip == "ours" else []
        watch = GradWatch(actions=actions, reporters=[], flow_every_n_steps=3, **arguments)
        with reductions() as made:
            fit(
                Model(configure), watch, loader(), devices=2, strategy=strategy(*sizes),
                use_distributed_sampler=False,  # every process sees all: equal to one process
                validated=validated, val_check_interval=2 if validated else None,
                gradient_clip_val=CLIP if clip == "trainer" else None,
            )  # fmt: skip
        norms = float(watch._engine.settings.norm_type)
        truth = alone(batches(), clip=CLIP if clip else None)
        if norms != 2.0:
            truth = {}
        left_out = list(watch._engine.diagnosis.facts.left_out)
        return told(watch) | {"reductions": made, "truth": truth, "left_out": left_out}

    return scenario


def largest(place: Path) -> dict[str, Any]:
    """The maximum norm is a maximum over processes, not a sum."""
    story = in_trainer("fsdp", norm_type="inf")(place)
    net = network()
    mean_square(net, batches()[0]).backward()
    return story | {"first": [float(p.grad.abs().max()) for p in net.parameters()]}


def bare(
    net: nn.Module, sabotage: Callable[[int], None] = lambda step: None, **arguments: Any
) -> dict[str, Any]:
    """Train by hand, with a GradientWatcher on every rank."""
    sgd = torch.optim.SGD(net.parameters(), RATE)
    with (
        reductions() as made,
        GradientWatcher(net, sgd, reporters=[], **arguments) as watcher,
    ):
        for step, batch in enumerate(batches()):
            sgd.zero_grad()
            loss = mean_square(net, batch)
            loss.backward()
            sabotage(step)
            watcher.step(loss=loss)
            sgd.step()
    whole = [getattr(p, "full_tensor", lambda p=p: p)().detach().tolist() for p in net.parameters()]
    return told(watcher) | {"reductions": made, "weights": whole}


def flat_mesh() -> Any:
    return init_device_mesh("cpu", (dist.get_world_size(),))


def unused_on_some_ranks(place: Path) -> dict[str, Any]:
    """A gradient that only one process has, and one that none has."""
    net = sharded(network(), flat_mesh())

    def drop(step: int) -> None:
        if dist.get_rank() == 1 and step in (1, 2):
            net[0].weight.grad = None
        if step == 2:
            net[4].bias.grad = None

    return bare(net, drop)


def failing(where: str, **arguments: Any) -> Callable[[Path], dict[str, Any]]:
    """The probe of rank 1 fails at step 2, before, within or after the collective."""

    def scenario(place: Path) -> dict[str, Any]:
        owner, name = {
            "before": (Probe, "_shards"),
            "within": (ShardedNorms, "_power"),
            "after": (NormReader, "read"),
            "later": (Probe, "_measure_again"),
        }[where]
        real, step = getattr(owner, name), [0]

        def broken(*args: Any, **kwargs: Any) -> Any:
            due = step[0] == 2 and dist.get_rank() == 1
            if due:
                setattr(owner, name, real)
                raise ArithmeticError("sabotage")
            return real(*args, **kwargs)

        def sabotage(now: int) -> None:
            step[0] = now

        setattr(owner, name, broken)
        try:
            return bare(sharded(network(), flat_mesh()), sabotage, **arguments)
        finally:
            setattr(owner, name, real)

    return scenario


def sequence_parallel(place: Path) -> dict[str, Any]:
    """Gradients of the norm are sums that are still to be made (Partial)."""

    def build() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 1)
        ).double()

    net = build()
    plan = {
        "0": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(0)),
        "1": SequenceParallel(sequence_dim=0),
        "2": ColwiseParallel(input_layouts=Shard(0), output_layouts=Shard(-1)),
        "3": RowwiseParallel(input_layouts=Shard(-1), output_layouts=Replicate()),
    }
    parallelize_module(net, flat_mesh(), plan)
    story = bare(net)
    kinds = [str(getattr(p.grad, "placements", "")) for p in net.parameters()]
    plain = build()
    parallelize_module(plain, flat_mesh(), plan)
    sgd = torch.optim.SGD(plain.parameters(), RATE)
    for batch in batches():
        sgd.zero_grad()
        mean_square(plain, batch).backward()
        sgd.step()
    unwatched = [getattr(p, "full_tensor", lambda p=p: p)().tolist() for p in plain.parameters()]
    return story | {"truth": alone(batches(), build()), "kinds": kinds, "unwatched": unwatched}


SCENARIOS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "fsdp": in_trainer("fsdp"),
    "fsdp-validated": in_trainer("fsdp", "trainer", validated=True),
    "one-validated": in_trainer("one", "trainer", validated=True),
    "fsdp-trainer": in_trainer("fsdp", "trainer"),
    "fsdp-ours": in_trainer("fsdp", "ours"),
    "fsdp-largest": largest,
    "tensor": in_trainer("tensor"),
    "tensor-ours": in_trainer("tensor", "ours"),
    "sequence": sequence_parallel,
    "unused": unused_on_some_ranks,
    **{f"failing-{where}": failing(where) for where in ("before", "within", "after", "later")},
    "failing-acting": failing("within", actions=[SkipStep(), ClipGradNorm(0.1)]),
}

assert STEPS > 3
