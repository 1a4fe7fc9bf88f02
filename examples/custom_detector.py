"""A detector and an action of your own, about ten lines each, at work in a real fit.

`LongStep` says when a single step changes a weight by more than a tenth; `HalveLR` halves the
learning rate each time it does. Neither needs a base class: anything with `update(sample)` is a
detector, anything with `apply(findings, training)` an action. The finding's code is all that they
know of each other; a code of your own has a dot in it.

    python -m examples.custom_detector

The patient is a sound network under Adam at fifty times its usual learning rate.
tests/examples/test_custom.py tests both without training anything.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

if not __package__:  # started as `python examples/custom_detector.py`
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from pytorch_lightning import Trainer, seed_everything

from examples import digits, mlp
from examples.options import Parser, make_parser, quiet, tool, trainer_options
from examples.result import Result, diagnosis, runs_folder, score
from lightning_gradwatch import ActionRecord, Finding, GradWatch, Sample, Severity
from lightning_gradwatch.actions import Training
from lightning_gradwatch.detectors import default_detectors


class LongStep:
    """A step changed a weight matrix by more than a tenth of its size."""

    def update(self, sample: Sample) -> Iterator[Finding]:
        """Look at the aftermath of a measured step, which comes with the sample after it."""
        if sample.update is None:
            return
        ratio = np.where(sample.layout.is_matrix, sample.update.update_ratio, 0.0)
        for i in np.flatnonzero(np.isfinite(ratio) & (ratio > 0.1)):
            name = sample.layout.parameters[i]
            yield Finding(
                "my.long_step", Severity.WARNING, (name.rpartition(".")[0],), sample.step,
                sample.step, evidence={"ratio": float(ratio[i])},
                summary=f"One step changed {name} by {ratio[i]:.0%}.",
            )  # fmt: skip


class HalveLR:
    """Halve the learning rate whenever a finding of the given code comes."""

    def __init__(self, on: str) -> None:
        self.on = on

    def apply(self, findings: Sequence[Finding], training: Training) -> ActionRecord | None:
        """Act on this very step, before it is made; return what was done, if anything was."""
        if not any(finding.code == self.on for finding in findings):
            return None
        change = training.scale_lr(0.5)  # stays lowered, whatever scheduler is at work
        return change and ActionRecord("HalveLR", training.step, self.on, *change)


def make_arguments() -> Parser:
    """Return the command line of this example."""
    parser = make_parser("custom_detector", __doc__, epochs=15, quick=2)
    parser.add_argument("--watch-only", action="store_true", help="detect, and do not act")
    return parser


def train(args: Namespace) -> Result:
    """Train and validate; return what GradWatch saw and the accuracy."""
    seed_everything(args.seed)
    model = mlp.MLP(activation="relu", init="he", optimizer="adam", lr=0.05)
    training, validation = digits.loaders("vectors")

    watch = GradWatch(
        detectors=[*default_detectors(), LongStep()],
        actions=[] if args.watch_only else [HalveLR(on="my.long_step")],
    )
    trainer = Trainer(callbacks=[watch], **trainer_options(make_arguments(), args))
    trainer.fit(model, training, validation)
    return Result.of(trainer, model, watch, validation, chance=1 / digits.CLASSES)


def main(argv: Sequence[str] | None = None) -> None:
    """Train without the action and with it, and tell how it went."""
    parser = make_arguments()
    args = parser.parse_args(argv)
    quiet()
    for watch_only in [True] if args.watch_only else [True, False]:
        args.watch_only = watch_only
        result = train(args)
        print(f"\n{'LongStep alone' if watch_only else 'LongStep and HalveLR'}: {score(result)}")
        print("\n".join(f"  {line}" for line in diagnosis(result.watch)))
        for done in result.watch.actions_taken:
            print(f"  {done.action} at step {done.step}: {done.before:.3g} → {done.after:.3g}")
    print(f"  {tool('tensorboard')} --logdir {runs_folder(args, result)}\n      the curves")


if __name__ == "__main__":
    main()
