"""How a run ended, and what to try next: the last lines that every example prints.

The proposals come from GradWatch's findings and from the switches of the run at hand, so that what
is already in place is never proposed again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from examples.learner import Learner
from examples.options import Parser, command, tool, untreated, variant
from lightning_gradwatch import GradWatch, Severity


@dataclass(frozen=True)
class Result:
    """What a run leaves behind.

    Attributes:
        watch: The callback, with findings, history and report.
        model: The trained model.
        score: Accuracy (0 to 1) or R² on the validation data.
        chance: The score of guessing.
        epochs: Epochs that were planned.
        log_dir: Where TensorBoard finds the run.
    """

    watch: GradWatch
    model: Learner
    score: float
    chance: float
    epochs: int
    log_dir: Path

    @classmethod
    def of(
        cls,
        trainer: pl.Trainer,
        model: Learner,
        watch: GradWatch,
        validation: DataLoader,
        chance: float = 0.0,
    ) -> Result:
        """Measure the final score, in the middle of an epoch too, and collect the rest."""
        metric = model.eval().metric()
        with torch.no_grad():
            for x, target in validation:
                metric.update(model(x), target)
        score = float(metric.compute())
        return cls(
            watch, model, score, chance, trainer.max_epochs or 1, Path(trainer.log_dir or ".")
        )


@dataclass(frozen=True)
class Remedy:
    """A change of switches that may help.

    Attributes:
        against: Codes of the findings it is meant for.
        why: How it helps, in a few words.
        change: Given the arguments and the learning rate in use, the switches to set; an empty
            mapping where the remedy makes no sense.
    """

    against: tuple[str, ...]
    why: str
    change: Callable[[argparse.Namespace, float], Mapping[str, Any]]


#: For training that runs away, whatever the network.
TAMING: tuple[Remedy, ...] = (
    Remedy(
        ("exploding", "nonfinite", "oscillating"),
        "a tenth of the learning rate",
        lambda args, lr: {"lr": lr / 10},
    ),
    Remedy(
        ("exploding",),
        "clip the gradient norm (Pascanu et al. 2013)",
        lambda args, lr: {"clip": 1.0},
    ),
    Remedy(("stalled",), "ten times the learning rate", lambda args, lr: {"lr": lr * 10}),
)


def tell(
    parser: Parser, args: argparse.Namespace, result: Result, remedies: Sequence[Remedy]
) -> None:
    """Print the score, what GradWatch found, and what to try next."""
    print(f"\n{command(parser, args)}")
    print(f"  {score(result)}")
    for line in diagnosis(result.watch):
        print(f"  {line}")
    print("What you could try next:")
    for line, why in next_steps(parser, args, result, remedies):
        print(f"  {line}\n      {why}")
    print(f"  {tool('tensorboard')} --logdir {runs_folder(args, result)}\n      the curves")


def runs_folder(args: argparse.Namespace, result: Result) -> Path:
    """Return the folder that holds this run and, unless `--logdir` was given, its siblings."""
    return args.logdir or result.log_dir.parent.parent


def score(result: Result) -> str:
    """Return the score beside that of guessing."""
    name = result.model.score_name
    if name == "accuracy":
        return f"accuracy {result.score:.1%} (guessing: {result.chance:.0%})"
    return f"{name} {result.score:.3f} (guessing: {result.chance:.0f})"


def diagnosis(watch: GradWatch) -> list[str]:
    """Return one line for each finding that matters, or one that says that there is none."""
    serious = [f for f in watch.findings if f.severity >= Severity.WARNING]
    if not serious:
        return ["GradWatch: healthy"]
    return [f"GradWatch: {f.code} ({f.severity.name}). {f.summary}" for f in serious]


def next_steps(
    parser: Parser, args: argparse.Namespace, result: Result, remedies: Sequence[Remedy]
) -> list[tuple[str, str]]:
    """Return command lines worth trying after this run, each with its reason."""
    codes = [f.code for f in result.watch.findings if f.severity >= Severity.WARNING]
    if codes:
        return list(_cures(parser, args, codes, result.model.lr, remedies))
    steps = []
    if not result.score > (result.chance + 1.0) / 2:
        longer = command(parser, args, epochs=2 * result.epochs, quick=False)
        steps.append((longer, "the gradients are in order, so give it more time"))
    sick = untreated(parser, args)
    if variant(parser, args) != variant(parser, sick):
        steps.append((command(parser, sick), "without any remedy, to see it fail"))
    return steps


def _cures(
    parser: Parser,
    args: argparse.Namespace,
    codes: Sequence[str],
    lr: float,
    remedies: Sequence[Remedy],
) -> Iterator[tuple[str, str]]:
    now = command(parser, args)
    seen = {now}
    for remedy in (r for code in codes for r in remedies if code in r.against):
        changed = {k: v for k, v in remedy.change(args, lr).items() if hasattr(args, k)}
        line = command(parser, args, **changed)
        if line not in seen:
            seen.add(line)
            yield line, remedy.why
