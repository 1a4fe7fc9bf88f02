"""`gradwatch replay`: how to run a saved batch again. It prints; only you have the model."""

from __future__ import annotations

import argparse
from pathlib import Path

from lightning_gradwatch.cli.runs import UsageError

_TEXT = """\
{file} is a batch that the action SaveBatch kept. Build the model as it was before that step,
then run the batch again:

    import torch
    from lightning_gradwatch import preflight
    from lightning_gradwatch.actions import load_batch

    model = ...  # your LightningModule, with the weights of the last checkpoint before the step
    saved = load_batch({path!r})
    print(saved.reason, saved.epoch, saved.batch_idx, saved.step, saved.left_out)

    print(preflight(model, saved.batch))  # what it does to the gradients, without a step

    saved.restore_random_states()  # the same dropout once more
    with torch.autograd.detect_anomaly():  # names the operation that made the first NaN
        model.training_step(saved.batch, saved.batch_idx).backward()
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", type=Path, metavar="FILE", help="what SaveBatch wrote")


def run(args: argparse.Namespace) -> int:
    """Print what to do with the file.

    Raises:
        UsageError: There is no such file.
    """
    if not args.file.exists():
        raise UsageError(f"there is no file {str(args.file)!r}")
    print(_TEXT.format(file=args.file.name, path=str(args.file)), end="")
    return 0
