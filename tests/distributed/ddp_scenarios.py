"""Played by two processes: DDP in Lightning, in Fabric and in a bare loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy as FabricDDP
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from lightning_gradwatch import GradientWatcher, GradWatch
from lightning_gradwatch.actions import ClipGradNorm, DecayLR, SkipStep
from lightning_gradwatch.probe.norms import NormReader
from tests.distributed.models import (
    RATE,
    STEPS,
    Model,
    alone,
    batches,
    fit,
    mean_square,
    network,
    told,
    weights,
)
from tests.distributed.sharded_scenarios import reductions


def halves(steps: int = STEPS) -> list[list[tuple[Tensor, Tensor]]]:
    """What each rank is given: halves of the batches that one process would see."""
    return [
        [(x[rank::2], y[rank::2]) for x, y in batches(8, steps)]
        for rank in range(dist.get_world_size())
    ]


def own() -> list[tuple[Tensor, Tensor]]:
    return halves()[dist.get_rank()]


def train(
    model: pl.LightningModule | None = None,
    actions: tuple[object, ...] = (),
    watched: bool = True,
    place: Path | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    """Fit a model on two ranks with a GradWatch, and tell what this rank saw."""
    torch.manual_seed(0)
    model = model or Model()
    options = {k: arguments.pop(k) for k in tuple(arguments) if k in _DDP}
    watch = GradWatch(actions=actions, reporters=None if place else [], flow_every_n_steps=3)
    logger = pl.loggers.TensorBoardLogger(place, name="log", version=0) if place else False
    trainer = fit(
        model, watch if watched else None, DataLoader(own(), batch_size=None), devices=2,
        logger=logger, strategy=DDPStrategy(**options), use_distributed_sampler=False,
        log_every_n_steps=2, **arguments,
    )  # fmt: skip
    return told(watch) | {
        "weights": weights(model),
        "lr": trainer.optimizers[0].param_groups[0]["lr"],
        "global_step": trainer.global_step,
        "environment": dict(watch._engine.run.environment),
        "sentences": [f.summary for f in watch.findings],
    }


_DDP = {"find_unused_parameters", "gradient_as_bucket_view", "static_graph"}


def whole(**arguments: Any) -> Callable[[Path], dict[str, Any]]:
    """Watched and unwatched on two ranks, and the same batches whole in one process."""

    def scenario(place: Path) -> dict[str, Any]:
        with reductions(anyones=True) as made:
            watched = train(**arguments)
            count = len(made)
            unwatched = train(**arguments, watched=False)
        grouped = batches(8)
        every = arguments.get("accumulate_grad_batches", 1)
        if every > 1:
            pairs = [grouped[i : i + every] for i in range(0, STEPS, every)]
            grouped = [tuple(torch.cat(parts) for parts in zip(*p, strict=True)) for p in pairs]
        added = 2 * count - len(made)  # reductions with us, less those without
        told = {"unwatched": unwatched["weights"], "truth": alone(grouped), "added": added}
        return watched | told

    return scenario


def recorded(place: Path) -> dict[str, Any]:
    """With everything that writes: one of the ranks does."""
    story = train(place=place)
    dist.barrier()
    files = [str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()]
    return story | {"files": sorted(files)}


class Poisoned(Model):
    """Loss of NaN on rank 1 at one step."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * float("nan") if batch_idx == 2 and dist.get_rank() == 1 else loss


def poisoned(place: Path) -> dict[str, Any]:
    actions = (SkipStep(), ClipGradNorm(0.5), DecayLR(on=("nonfinite",), cooldown=2))
    return train(Poisoned(), actions)


class Branches(Model):
    """A layer that only rank 1 uses, at odd steps, and one that nobody does."""

    def __init__(self) -> None:
        super().__init__()
        self.sometimes = nn.Linear(8, 1).double()
        self.never = nn.Linear(8, 1).double()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if batch_idx % 2 and dist.get_rank() == 1:
            loss = loss + self.sometimes(batch[0]).square().mean()
        return loss


def unused(place: Path) -> dict[str, Any]:
    kinds = [Branches() for _ in range(2)]
    story = train(kinds[0], (ClipGradNorm(1e6),), find_unused_parameters=True)
    plain = train(kinds[1], watched=False, find_unused_parameters=True)
    return story | {"unwatched": plain["weights"], "truth": {}}


def bucket_view_and_actions(place: Path) -> dict[str, Any]:
    """Gradients are views of the buckets that DDP communicates: skipping must not break them."""
    story = train(Poisoned(), (SkipStep(), ClipGradNorm(0.5)), gradient_as_bucket_view=True)
    return story | {"plain": train(Poisoned(), (SkipStep(), ClipGradNorm(0.5)))["weights"]}


class Fails:
    """An action that fails on rank 1 only."""

    def apply(self, findings: Any, training: Any) -> None:
        if training.step == 2 and dist.get_rank() == 1:
            raise ArithmeticError("sabotage")


def failing_action(place: Path) -> dict[str, Any]:
    return train(actions=(Fails(), ClipGradNorm(0.5)))


def failing_probe(place: Path) -> dict[str, Any]:
    """Rank 1 can read no more from step 2 on: no rank clips any more, or weights would part."""
    real, calls = NormReader.read, [0]

    def broken(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3 and dist.get_rank() == 1:
            raise ArithmeticError("sabotage")
        return real(*args, **kwargs)

    NormReader.read = broken  # type: ignore[method-assign]
    try:
        return train(actions=(ClipGradNorm(0.5),))
    finally:
        NormReader.read = real  # type: ignore[method-assign]


def bare_loop(place: Path) -> dict[str, Any]:
    """A loop of one's own, accumulating two micro-batches without communication in between."""
    ddp = DistributedDataParallel(network())
    sgd = torch.optim.SGD(ddp.parameters(), RATE)
    heard: list[str] = []

    class Hears:
        def sample(self, sample: Any) -> None:
            heard.append("sample")

        log = finding = action = start = finish = sample

    with GradientWatcher(ddp, sgd, actions=[ClipGradNorm(0.5)], reporters=[Hears()]) as watcher:
        for i in range(0, STEPS, 2):
            sgd.zero_grad()
            first, second = own()[i : i + 2]
            with ddp.no_sync():
                (mean_square(ddp, first) / 2).backward()
            loss = mean_square(ddp, second)
            (loss / 2).backward()
            watcher.step(loss=loss)
            sgd.step()
    story = train(actions=(ClipGradNorm(0.5),), accumulate_grad_batches=2)
    return told(watcher) | {
        "weights": weights(ddp),
        "lightning": story,
        "heard": len(heard),
        "environment": dict(watcher._engine.run.environment),
    }


def fabric_loop(place: Path) -> dict[str, Any]:
    """Fabric wraps what DDP wraps: names and figures are those of the callback."""
    fabric = Fabric(accelerator="cpu", devices=2, strategy=FabricDDP())
    fabric.launch()
    net = network()
    model, sgd = fabric.setup(net, torch.optim.SGD(net.parameters(), RATE))
    with GradientWatcher(model, sgd, actions=[ClipGradNorm(0.5)], reporters=[]) as watcher:
        for batch in own():
            sgd.zero_grad()
            loss = mean_square(model, batch)
            fabric.backward(loss)
            watcher.step(loss=loss)
            sgd.step()
    story = train(actions=(ClipGradNorm(0.5),))
    return told(watcher) | {"weights": weights(net), "lightning": story}


SCENARIOS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "plain": whole(),
    "accumulated": whole(accumulate_grad_batches=2),
    "bucket-view": whole(gradient_as_bucket_view=True),
    "static": whole(static_graph=True),
    "recorded": recorded,
    "poisoned": poisoned,
    "unused": unused,
    "bucket-view-actions": bucket_view_and_actions,
    "failing-action": failing_action,
    "failing-probe": failing_probe,
    "bare": bare_loop,
    "fabric": fabric_loop,
}
