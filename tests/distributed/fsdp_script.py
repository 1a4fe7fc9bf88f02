"""Run by two processes: trains a model that FSDP2 shards, or tensor parallel splits, over both."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.utils.data import DataLoader, TensorDataset

from lightning_gradwatch import GradWatch
from lightning_gradwatch.actions import ClipGradNorm, Rollback, SkipStep
from lightning_gradwatch.finding import Finding, Severity


class Explodes:
    """Says so at a step, on one rank only."""

    def update(self, sample):
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 1
        if sample.step == 20 and rank == 1:
            yield Finding("exploding", Severity.ERROR, (), sample.step, sample.step)


class Weights(pl.Callback):
    """The part of the weights and of the momenta that lies here, before each step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        [optimizer] = trainer.optimizers
        own = [p.detach() for p in pl_module.parameters()]
        own += [s["momentum_buffer"] for s in optimizer.state.values() if "momentum_buffer" in s]
        whole = [t.full_tensor() if hasattr(t, "full_tensor") else t for t in own]
        self.seen.append([t.flatten().tolist() for t in whole])


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    # Seven rows do not divide by two, one row leaves the second process an empty shard.
    return torch.nn.Sequential(
        torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 7), torch.nn.LayerNorm(7),
        torch.nn.Linear(7, 1),
    )  # fmt: skip


class Model(pl.LightningModule):
    def __init__(self, kind: str, lr: float, momentum: float) -> None:
        super().__init__()
        self.kind, self.lr, self.momentum = kind, lr, momentum
        if kind == "plain":
            self.net = network()

    def configure_model(self):
        if self.kind == "plain" or hasattr(self, "net"):
            return
        self.net = network()
        if self.kind == "fsdp":
            for layer in (self.net[0], self.net[2], self.net[4]):
                fully_shard(layer, mesh=self.device_mesh["data_parallel"])
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])
        else:
            plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
            parallelize_module(self.net, self.device_mesh["tensor_parallel"], plan)

    def training_step(self, batch, batch_idx):
        return (self.net(batch[0]) - batch[1]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr, momentum=self.momentum)


def main(place: str, kind: str, clip: str) -> None:
    torch.set_num_threads(1)
    back = clip == "rollback"
    x = torch.randn(120 if back else 32, 8, generator=torch.Generator().manual_seed(1))
    loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4)
    actions = {
        "ours": [ClipGradNorm(0.3)],
        "rollback": [SkipStep(), Rollback(watch_loss=False)],
    }.get(clip, [])
    watch = GradWatch(actions=actions, record=False, detectors=[Explodes()] if back else None)
    weights = Weights()
    arguments = {}
    if kind != "plain":
        arguments = {
            "devices": 2,
            "use_distributed_sampler": False,  # every process sees all: equal to one process
            "strategy": ModelParallelStrategy(
                data_parallel_size=2 if kind == "fsdp" else 1,
                tensor_parallel_size=1 if kind == "fsdp" else 2,
                process_group_backend="gloo",
            ),
        }
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, callbacks=[watch, weights],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        gradient_clip_val=0.2 if clip == "trainer" else None, **arguments,
    )  # fmt: skip
    trainer.fit(Model(kind, 0.01, 0.5) if back else Model(kind, 0.1, 0.0), loader)
    history = watch.history
    story = {
        "parameters": history.parameters,
        "norms": history.grad_norm.tolist(),
        "global": history.global_norm.tolist(),
        "clipped": history.clipped_norm.tolist(),
        "healthy": watch.healthy,
        "weights": weights.seen if back else [],
        "actions": [(r.action, r.step, r.reason) for r in watch.actions_taken],
        "lr": trainer.optimizers[0].param_groups[0]["lr"],
    }
    Path(place, f"{kind}-{clip}-{trainer.global_rank}.json").write_text(json.dumps(story))


if __name__ == "__main__":
    main(*sys.argv[1:])
