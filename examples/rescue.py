"""One bad batch kills a run; the same run, with `rescue()`, lives on.

A sound network learns handwritten digits by SGD with momentum. Then a batch arrives whose pixels
nobody has scaled: a shard of the data was written by another script, say. The one step that it
causes is so long that the run never comes back. Nobody is awake to load a checkpoint from before;
`rescue()` keeps one in memory, goes back to it, and goes on.

    python -m examples.rescue                   # dies, and lives on
    python -m examples.rescue --batch nan       # a batch with one NaN in it
    python -m examples.rescue --batch labels    # twelve batches with the labels of other digits
    python -m examples.rescue --batch sound     # nothing happens, and the rescue costs nothing
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

if not __package__:  # started as `python examples/rescue.py`
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import math

import numpy as np
from pytorch_lightning import Trainer, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader

from examples import digits, mlp
from examples.options import Parser, make_parser, quiet, tool, trainer_options
from examples.result import Result, diagnosis, runs_folder, score
from lightning_gradwatch import GradWatch
from lightning_gradwatch.actions import rescue


def _nan(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone()
    x[0, 0] = math.nan
    return x, y


#: What can be wrong with a batch: what it is, how many in a row, and what becomes of them.
BATCHES: dict[str, tuple[str, int, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]] = {
    "pixels": ("a batch whose pixels are 10,000 times too large", 1, lambda x, y: (x * 1e4, y)),
    "nan": ("a batch with one NaN in it", 1, _nan),
    "labels": ("twelve batches with wrong labels", 12, lambda x, y: (x, (y + 1) % digits.CLASSES)),
    "sound": ("nothing", 0, lambda x, y: (x, y)),
}

#: Index of the first bad batch, and of the same in a short run.
BAD, BAD_QUICK = 150, 40


class WithBadBatches:
    """A loader in which some batches are bad.

    Args:
        loader: The sound batches.
        kind: A key of `BATCHES`.
        first: Index of the first bad one, counted over epochs.
    """

    def __init__(self, loader: DataLoader, kind: str, first: int) -> None:
        _, self.count, self.spoil = BATCHES[kind]
        self.loader, self.first, self.drawn = loader, first, 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self.loader:
            bad = self.first <= self.drawn < self.first + self.count
            self.drawn += 1
            yield self.spoil(x, y) if bad else (x, y)


def make_arguments() -> Parser:
    """Return the command line of this example."""
    parser = make_parser("rescue", __doc__, epochs=15, quick=4)
    parser.add_argument("--batch", choices=BATCHES, default="pixels", help="what arrives")
    parser.add_argument("--rescue", action="store_true", help="only the run that is rescued")
    return parser


def train(args: Namespace) -> Result:
    """Train and validate; return what GradWatch saw and the accuracy."""
    seed_everything(args.seed)
    model = mlp.MLP(depth=4, activation="relu", init="he", optimizer="momentum", lr=0.02)
    training, validation = digits.loaders("vectors")
    bad = BAD_QUICK if args.quick else BAD

    watch = GradWatch(actions=rescue() if args.rescue else [])
    trainer = Trainer(callbacks=[watch], **trainer_options(make_arguments(), args))
    trainer.fit(model, WithBadBatches(training, args.batch, bad), validation)
    return Result.of(trainer, model, watch, validation, chance=1 / digits.CLASSES)


def story(result: Result, first: int) -> list[str]:
    """Return what happened, line by line: what was found, what was done, where the loss went.

    Args:
        result: Of the run.
        first: Step of the first bad batch.
    """
    watch = result.watch
    lines = diagnosis(watch)
    for done in watch.actions_taken:
        change = f", {done.before:.3g} → {done.after:.3g}" if math.isfinite(done.after) else ""
        lines.append(f"step {done.step}: {done.action}{change}. {done.reason}")
    return [*lines, f"loss: {course(watch, first)}"]


def course(watch: GradWatch, first: int) -> str:
    """Return the loss before the bad batch, at it, soon after it and at the end."""
    history = watch.history
    before, at = history.steps < first, history.steps >= first
    after = at & (history.steps >= first + 20)
    parts = [
        ("before", np.median(history.loss[before][-20:])),
        ("at the bad batch", history.loss[at][0]),
        ("20 steps later", history.loss[after][0]),
        ("at the end", np.median(history.loss[-20:])),
    ]
    return ", ".join(f"{value:.3g} {when}" for when, value in parts)


def main(argv: Sequence[str] | None = None) -> None:
    """Train without rescue and with it, and tell what became of both."""
    parser = make_arguments()
    args = parser.parse_args(argv)
    quiet()
    first, results = BAD_QUICK if args.quick else BAD, []
    for rescued in [True] if args.rescue else [False, True]:
        args.rescue = rescued
        results.append(train(args))
    what, count, _ = BATCHES[args.batch]
    at = f"step {first}" if count < 2 else f"steps {first} to {first + count - 1}"
    print(f"\nAt {at} came {what}.")
    for result in results:
        rescued = result is results[-1]
        print(f"\n{'GradWatch(actions=rescue())' if rescued else 'GradWatch()'}: {score(result)}")
        print("\n".join(f"  {line}" for line in story(result, first)))
    folder = runs_folder(args, results[-1])
    print(f"\n  {tool('tensorboard')} --logdir {folder}\n      the curves, side by side")


if __name__ == "__main__":
    main()
