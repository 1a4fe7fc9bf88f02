"""What watching costs on a GPU: whole training steps, in milliseconds and beside plain training.

    python -m benchmarks.cuda [--rounds 5] [--steps 150] > benchmarks/results/cuda.md

One process. Each round fits every model with every variant, in random order; a fit is timed from
one synchronisation to the next over all steps behind the warm-up, logging steps included, so that
whatever makes the host wait for the device counts. The figure is the median over the rounds;
`plain (again)` is the control: how far two equal things differ here. Memory is the most that torch
had allocated on the device, without what the allocator holds in reserve.

Without CUDA it says so and exits with 2. `--tiny cpu` runs everything once in tiny sizes on the
CPU, to see that it runs: its numbers say nothing.
"""

from __future__ import annotations

import argparse
import gc
import logging
import random
import statistics
import sys
import tempfile
import time
import warnings
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import grad_norm
from torch import Tensor, nn

from benchmarks.cuda_models import CASES, Case
from lightning_gradwatch import GradWatch
from lightning_gradwatch.actions import ClipGradNorm, ZClip

#: Steps before the clock starts: compilation, autotuning, and the first ten, whose flow is read.
WARM_UP = 30

VARIANTS = (
    "plain",
    "plain (again)",
    "GradWatch()",
    "GradWatch(flow_every_n_steps=0)",
    "GradWatch(ClipGradNorm)",
    "GradWatch(ZClip), waits for each step",
    "Trainer(gradient_clip_val)",
    "clip_grad_norm_ in a hook",
    "self.log_dict(grad_norm)",
)


class Task(pl.LightningModule):
    """Trains on one batch, again and again; AdamW leaves the weights where they are."""

    def __init__(self, case: Case, tiny: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = case.kind(case.tiny if tiny else case.full).to(case.dtype)
        self.case = case
        self.run: Any = torch.compile(self.model) if case.compiled else self.model
        self.given: Tensor | None = None

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """One step."""
        if self.given is None:
            given = self.model.batch(self.device)
            self.given = given.to(self.case.dtype) if given.is_floating_point() else given
        return self.run(self.given)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, as the case has it."""
        how = {"fused": True} if self.case.fused else {"foreach": True}
        return torch.optim.AdamW(self.parameters(), lr=0.0, weight_decay=0.0, **how)


class Recipe(Task):
    """The same with the recipe of Lightning's documentation."""

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Log the norm of every gradient."""
        self.log_dict(grad_norm(self.model, norm_type=2))


class Clipped(Task):
    """The same with torch's clipping, called by the user."""

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Clip."""
        nn.utils.clip_grad_norm_(self.parameters(), 1e6)


#: A hook of the user's says that gradients may be changed by others: only where there is one.
TASKS = {"self.log_dict(grad_norm)": Recipe, "clip_grad_norm_ in a hook": Clipped}


class Clock(pl.Callback):
    """Time of the steps behind the warm-up, between two synchronisations."""

    def __init__(self, warm_up: int, steps: int) -> None:
        self.warm_up, self.steps = warm_up, steps
        self.start = self.end = 0.0

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Start the clock."""
        if batch_idx == self.warm_up:
            _wait(module.device)
            self.start = time.perf_counter()

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Stop it; reports at the end of the fit are not part of a step."""
        _wait(module.device)
        self.end = time.perf_counter()

    @property
    def step(self) -> float:
        """Milliseconds of a step."""
        return 1e3 * (self.end - self.start) / (self.steps - self.warm_up)


class Figure(NamedTuple):
    """What one fit has shown: milliseconds of a step, and memory in MiB."""

    step: float
    memory: float


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fit(case: Case, variant: str, steps: int, warm_up: int, tiny: bool) -> Figure:
    """Train for a while."""
    actions = {
        "GradWatch(ClipGradNorm)": [ClipGradNorm(1e6)],
        "GradWatch(ZClip), waits for each step": [ZClip()],
    }.get(variant, [])
    # First in the list: its end comes before our report.
    clock = Clock(warm_up, steps)
    callbacks: list[pl.Callback] = [clock]
    if variant == "GradWatch(flow_every_n_steps=0)":
        callbacks.append(GradWatch(flow_every_n_steps=0))
    elif variant.startswith("GradWatch"):
        callbacks.append(GradWatch(actions=actions))
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as place:
        trainer = pl.Trainer(
            max_steps=steps, accelerator="cpu" if tiny else "gpu", devices=1,
            logger=TensorBoardLogger(place), callbacks=callbacks, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
            gradient_clip_val=1e6 if variant == "Trainer(gradient_clip_val)" else None,
        )  # fmt: skip
        task = TASKS.get(variant, Task)(case, tiny)
        trainer.fit(task, torch.utils.data.DataLoader(torch.zeros(steps, 1)))
    memory = 0.0 if tiny else torch.cuda.max_memory_allocated() / 2**20
    return Figure(clock.step, memory)


def table(figures: dict[tuple[str, str], list[Figure]], cases: list[str]) -> list[str]:
    """Return one table in markdown for each model."""
    lines = []
    for name in cases:
        plain = [f.step for f in figures[name, "plain"]]
        lines += [
            f"\n## {name}\n",
            "| variant | ms a step | ratio to plain | least to most | MiB more than plain |",
            "| --- | --- | --- | --- | --- |",
        ]
        base = statistics.median(f.memory for f in figures[name, "plain"])
        for variant in VARIANTS:
            found = figures.get((name, variant))
            if not found:
                lines.append(f"| {variant} | it failed | | | |")
                continue
            ratios = [f.step / p for f, p in zip(found, plain, strict=False)]
            more = statistics.median(f.memory for f in found) - base
            lines.append(
                f"| {variant} | {statistics.median(f.step for f in found):.3f} "
                f"| {statistics.median(ratios):.3f} | {min(ratios):.3f} to {max(ratios):.3f} "
                f"| {more:.1f} |"
            )
    return lines


def main() -> int:
    """Measure and print a document in markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150, help=f"steps of each fit, > {WARM_UP}")
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--tiny", choices=["cpu"], help="see that everything runs, on the CPU")
    args = parser.parse_args()
    tiny = args.tiny is not None
    if not tiny and not torch.cuda.is_available():
        print("benchmarks.cuda needs a CUDA device, and torch sees none here.", file=sys.stderr)
        return 2
    if args.steps <= WARM_UP and not tiny:
        parser.error(f"--steps must be above {WARM_UP}, got {args.steps}")
    steps, warm_up, rounds = (6, 2, 1) if tiny else (args.steps, WARM_UP, args.rounds)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for log in ("pytorch_lightning", "lightning.pytorch", "lightning_gradwatch"):
        logging.getLogger(log).setLevel(logging.ERROR)

    figures: dict[tuple[str, str], list[Figure]] = {}
    for round_ in range(rounds):
        for name in args.models:
            for variant in random.Random(round_).sample(VARIANTS, len(VARIANTS)):
                try:
                    figure = fit(CASES[name], variant, steps, warm_up, tiny)
                except (
                    Exception
                ) as error:  # a rival that cannot: the others are measured all the same
                    print(f"{name}, {variant}: {type(error).__name__}: {error}", file=sys.stderr)
                    continue
                figures.setdefault((name, variant), []).append(figure)
        print(f"round {round_ + 1} of {rounds}", file=sys.stderr, flush=True)

    device = "CPU, tiny: no figure" if tiny else torch.cuda.get_device_name()
    print(f"# `python -m benchmarks.cuda --rounds {rounds} --steps {steps}`\n")
    print(f"{device}, torch {torch.__version__}, Lightning {pl.__version__}.")
    print("\n".join(table(figures, args.models)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
