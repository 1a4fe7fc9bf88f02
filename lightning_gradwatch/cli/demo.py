"""`gradwatch demo`: train a small network that is sick, or cured, and say what is wrong."""

from __future__ import annotations

import argparse
from pathlib import Path

from lightning_gradwatch.cli.runs import UsageError

NAMES = ("mlp", "residual", "rnn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "name", nargs="?", default="mlp", choices=NAMES, metavar="NAME",
        help=f"which network: {', '.join(NAMES)} (default: mlp)",
    )  # fmt: skip
    state = parser.add_mutually_exclusive_group()
    state.add_argument("--sick", action="store_true", help="only as it should not be")
    state.add_argument("--cured", action="store_true", help="only with the remedy")
    parser.add_argument(
        "--logdir", type=Path, default=Path("runs/gradwatch-demo"), help="(default: %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=6, help="(default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Train, and print what was found; both if neither is asked for.

    Raises:
        UsageError: torch or Lightning is missing, or an argument makes no sense.
    """
    if args.epochs < 1:
        raise UsageError(f"--epochs must be 1 or more, got {args.epochs}")
    if args.logdir.exists() and not args.logdir.is_dir():
        raise UsageError(f"--logdir: {str(args.logdir)!r} is a file")
    try:
        from lightning_gradwatch.demo import train
    except ImportError as error:
        raise UsageError(f"a demo trains a network, and {error}") from error
    for cured in (False, True):
        if (cured and args.sick) or (not cured and args.cured):
            continue
        print(f"== {args.name}, {'cured' if cured else 'sick'}\n", flush=True)
        print(f"{train(args.name, cured, args.logdir, args.epochs)}\n", flush=True)
    print(f"See it: tensorboard --logdir {args.logdir}")
    print(f"    or: gradwatch report {args.logdir} -o report.html")
    return 0
