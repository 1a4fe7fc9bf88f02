"""Two processes on one CPU, by one command: every rank sees the same norms and decides the same.

    python -m examples.distributed                       # DDP: each rank has all weights
    python -m examples.distributed --strategy fsdp2      # each rank has half of every weight
    python -m examples.distributed --nan-on-rank 1       # one rank's batch is bad: both skip it

Nothing has to be set up: `GradWatch` asks the strategy. Under DDP gradients are equal on all ranks
after the backward pass; under FSDP2 each rank has a piece of each, and norms of the whole are put
together by adding up one vector. Rank zero reports.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as `python examples/distributed.py`
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import torch.distributed as dist
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor
from torch.distributed.fsdp import fully_shard

from examples import digits, mlp
from examples.options import Parser, command, make_parser, quiet, tool, trainer_options
from examples.result import Result, diagnosis, runs_folder, score
from lightning_gradwatch import GradWatch
from lightning_gradwatch.actions import SkipStep

RANKS = 2

#: Index of the batch that `--nan-on-rank` spoils.
BAD = 5


class Network(mlp.MLP):
    """Four ReLU layers, sharded where the strategy has a mesh for it.

    Args:
        nan_on_rank: The rank whose batch number `BAD` is NaN in the first epoch; None: no rank's.
    """

    def __init__(self, nan_on_rank: int | None = None) -> None:
        super().__init__(depth=4, activation="relu", init="he", optimizer="momentum", lr=0.02)
        self.nan_on_rank = nan_on_rank

    def configure_model(self) -> None:
        """Leave half of every weight to each rank, if they are to share them."""
        if self.device_mesh is None or hasattr(self.output, "unshard"):
            return
        for part in (*self.hidden, self.output):
            fully_shard(part, mesh=self.device_mesh["data_parallel"])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss, of NaN where that was asked for."""
        x, target = batch
        bad = batch_idx == BAD and self.current_epoch == 0
        if bad and self.global_rank == self.nan_on_rank:
            x = torch.full_like(x, torch.nan)
        return super().training_step((x, target), batch_idx)


def make_arguments() -> Parser:
    """Return the command line of this example."""
    parser = make_parser("distributed", __doc__, epochs=15, quick=2)
    parser.add_argument("--strategy", choices=["ddp", "fsdp2"], default="ddp", help="who has what")
    parser.add_argument("--nan-on-rank", type=int, choices=range(RANKS), help="spoil one batch")
    return parser


def strategy(name: str) -> Strategy:
    """Return the strategy that a switch names, for processes without a GPU."""
    if name == "ddp":
        return DDPStrategy(process_group_backend="gloo")
    return ModelParallelStrategy(
        data_parallel_size=RANKS, tensor_parallel_size=1, process_group_backend="gloo"
    )


def train(args: Namespace) -> tuple[Result, list[dict[str, Any]]]:
    """Train on both ranks; return the result, and what each of them saw."""
    seed_everything(args.seed)
    model = Network(args.nan_on_rank)
    training, validation = digits.loaders("vectors")

    watch = GradWatch(actions=[SkipStep()])
    trainer = Trainer(
        callbacks=[watch], devices=RANKS, strategy=strategy(args.strategy),
        **trainer_options(make_arguments(), args),
    )  # fmt: skip
    trainer.fit(model, training, validation)

    seen = {
        "norms": watch.history.grad_norm,
        "weights": sum(_local(p).numel() for p in trainer.optimizers[0].param_groups[0]["params"]),
        "skipped": [done.step for done in watch.actions_taken if done.action == "SkipStep"],
    }
    everywhere: list[Any] = [None] * RANKS
    dist.all_gather_object(everywhere, seen)
    return Result.of(trainer, model, watch, validation, chance=1 / digits.CLASSES), everywhere


def _local(parameter: Tensor) -> Tensor:
    """Return the piece of a parameter that this process holds."""
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def story(everywhere: Sequence[dict[str, Any]]) -> list[str]:
    """Return what the ranks saw, compared bit for bit."""
    first = everywhere[0]
    steps, parameters = first["norms"].shape
    same = all(np.array_equal(r["norms"], first["norms"], equal_nan=True) for r in everywhere)
    held = " and ".join(f"{rank['weights']:,}" for rank in everywhere)
    lines = [
        f"the ranks hold {held} weights",
        f"norms of {parameters} parameters at {steps} steps: "
        + ("the same on both ranks, bit for bit" if same else "NOT THE SAME on both ranks"),
    ]
    if any(rank["skipped"] for rank in everywhere):
        skips = [", ".join(map(str, rank["skipped"])) or "none" for rank in everywhere]
        lines.append(f"skipped steps: {skips[0]} on rank 0, {skips[1]} on rank 1")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Train on two processes, and tell on one of them what both have seen."""
    parser = make_arguments()
    args = parser.parse_args(argv)
    quiet()
    result, everywhere = train(args)
    if dist.get_rank() == 0:
        print(f"\n{command(parser, args)}")
        print(f"  {score(result)}")
        for line in [*diagnosis(result.watch), *story(everywhere)]:
            print(f"  {line}")
        print("What you could try next:")
        other = "fsdp2" if args.strategy == "ddp" else "ddp"
        print(f"  {command(parser, args, strategy=other)}\n      the same, shared out otherwise")
        if args.nan_on_rank is None:
            print(f"  {command(parser, args, nan_on_rank=1)}\n      a bad batch on one rank")
        print(f"  {tool('tensorboard')} --logdir {runs_folder(args, result)}\n      the curves")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
