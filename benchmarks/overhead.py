"""What watching costs: the whole training step with GradWatch beside the step without.

    python -m benchmarks.overhead [--rounds 5] [--steps 60]

One process, one thread. Each round fits every model with every variant for a while, in random
order; the figure is the median CPU time (all threads of the process) from one
`on_train_batch_start` to the next, and its ratio to plain training in the same round.
`plain (again)` is the control: how far two equal things differ here.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import grad_norm
from torch import Tensor, nn

from lightning_gradwatch import GradWatch
from lightning_gradwatch.actions import ClipGradNorm


class Mlp(nn.Module):
    """Twenty layers of 256: 40 parameters, 1.3 million numbers."""

    def __init__(self) -> None:
        super().__init__()
        layers = [m for _ in range(20) for m in (nn.Linear(256, 256), nn.ReLU())]
        self.net = nn.Sequential(*layers)
        for layer in self.net[::2]:
            nn.init.kaiming_normal_(layer.weight)

    def forward(self) -> Tensor:
        """Loss of one batch of 64."""
        return (self.net(torch.randn(64, 256)) - 1).square().mean()


class Many(nn.Module):
    """520 small layers: 1040 parameters, where the number of tensors is the cost."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(32, 16) for _ in range(520))

    def forward(self) -> Tensor:
        """Loss of one batch of 32."""
        x = torch.randn(32, 32)
        return torch.stack([part(x) for part in self.parts]).square().mean()


class Transformer(nn.Module):
    """Four layers of width 192, 64 tokens: the usual proportions, small enough for a CPU."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(192, 6, 768, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(192, 100)

    def forward(self) -> Tensor:
        """Loss of one batch of 8."""
        out = self.head(self.encoder(torch.randn(8, 64, 192)))
        return nn.functional.cross_entropy(out.flatten(0, 1), torch.randint(100, (512,)))


MODELS: dict[str, Callable[[], nn.Module]] = {"mlp": Mlp, "many": Many, "transformer": Transformer}


class Task(pl.LightningModule):
    """Trains one of the models on numbers made on the spot."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """One step."""
        return self.model()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW that leaves the weights where they are, so that every round sees the same."""
        return torch.optim.AdamW(self.parameters(), lr=0.0, weight_decay=0.0)


class Recipe(Task):
    """The same with the recipe of Lightning's documentation."""

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Log the norm of every gradient."""
        self.log_dict(grad_norm(self.model, norm_type=2))


class Clock(pl.Callback):
    """CPU time of each whole step; first in the list, so that everything lies between two reads."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """Note the time."""
        self.times.append(time.process_time())

    def median(self) -> float:
        """Median step in milliseconds, without the first twelve."""
        steps = [b - a for a, b in zip(self.times[12:], self.times[13:], strict=False)]
        return 1e3 * statistics.median(steps)

    def mean(self) -> float:
        """Mean step in milliseconds, sampled steps and logging included."""
        return 1e3 * (self.times[-1] - self.times[12]) / (len(self.times) - 13)


def fit(name: str, variant: str, steps: int) -> Clock:
    """Train for a while and return the clock."""
    clock = Clock()
    callbacks: list[pl.Callback] = [clock]
    if variant == "GradWatch()":
        callbacks.append(GradWatch())
    elif variant == "GradWatch(ClipGradNorm)":
        callbacks.append(GradWatch(actions=[ClipGradNorm(1e6)]))
    with tempfile.TemporaryDirectory() as place:
        trainer = pl.Trainer(
            max_steps=steps, accelerator="cpu", logger=TensorBoardLogger(place),
            callbacks=callbacks, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=1e6 if variant == "Trainer(gradient_clip_val)" else None,
        )  # fmt: skip
        loader = torch.utils.data.DataLoader(torch.zeros(steps, 1))
        task = Recipe if variant == "self.log_dict(grad_norm)" else Task
        trainer.fit(task(MODELS[name]()), loader)
    return clock


VARIANTS = (
    "plain",
    "plain (again)",
    "GradWatch()",
    "GradWatch(ClipGradNorm)",
    "Trainer(gradient_clip_val)",
    "self.log_dict(grad_norm)",
)


def main() -> None:
    """Measure and print a table in markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=112, help="steps of each fit, >= 30")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for log in ("pytorch_lightning", "lightning.pytorch", "lightning_gradwatch"):
        logging.getLogger(log).setLevel(logging.ERROR)

    ratios: dict[tuple[str, str], list[tuple[float, float]]] = {}
    plain: dict[str, list[float]] = {name: [] for name in args.models}
    for round_ in range(args.rounds):
        for name in args.models:
            order = random.Random(round_).sample(VARIANTS, len(VARIANTS))
            clocks = {variant: fit(name, variant, args.steps) for variant in order}
            base = clocks["plain"]
            plain[name].append(base.median())
            for variant, clock in clocks.items():
                pair = (clock.median() / base.median(), clock.mean() / base.mean())
                ratios.setdefault((name, variant), []).append(pair)
        print(f"round {round_ + 1} of {args.rounds}", flush=True)

    titles = [f"{n} ({statistics.median(plain[n]):.1f} ms)" for n in args.models]
    print("\n| whole step, ratio to plain: median (mean) | " + " | ".join(titles) + " |")
    print("| --- |" + " --- |" * len(titles))
    for variant in VARIANTS[1:]:
        cells = []
        for name in args.models:
            pairs = ratios[name, variant]
            median = statistics.median(m for m, _ in pairs)
            cells.append(f"{median:.2f} ({statistics.median(m for _, m in pairs):.2f})")
        print(f"| {variant} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
