"""`gradwatch replay`: how to run a saved batch again. It prints; only you have the model."""

from __future__ import annotations

import argparse
from pathlib import Path

from lightning_gradwatch.cli.runs import UsageError

_TEXT = """\
{file} holds the batch of a step that went wrong, as the action SaveBatch kept it.
To see what it does, build the model as it was and look at the batch before training on it:

    import torch
    from lightning_gradwatch import preflight
    from lightning_gradwatch.actions import load_batch

    model = ...  # your LightningModule, with the weights of the last good checkpoint
    batch = load_batch({path!r})
    print(preflight(model, batch))

    with torch.autograd.detect_anomaly():  # names the operation that made the first NaN
        model.training_step(batch, 0).backward()
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
