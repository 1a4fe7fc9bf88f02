"""`gradwatch ls`: the runs below a log directory, each with its verdict."""

from __future__ import annotations

import argparse
from datetime import datetime

from lightning_gradwatch.cli.runs import find_runs
from lightning_gradwatch.view.answers import describe
from lightning_gradwatch.view.files import fingerprint
from lightning_gradwatch.view.run import RecordedRun


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("logdir", metavar="LOGDIR", help="log directory, or one run's")


def run(args: argparse.Namespace) -> int:
    """Print one line for each run.

    Raises:
        UsageError: There is no recording.
    """
    rows = [("run", "steps", "layers", "written", "verdict")]
    for name, folder in find_runs(args.logdir).items():
        recorded = RecordedRun(folder)
        recorded.refresh(None)
        about = describe(recorded, name)
        latest = datetime.fromtimestamp(fingerprint(folder)[1])
        verdict = about["verdict"] if about["steps"] else "; ".join(about["problems"])
        rows.append(
            (
                name,
                f"{about['steps']:,}",
                f"{len(about['layers']):,}",
                f"{latest:%Y-%m-%d %H:%M}",
                verdict,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        name, steps, layers, *rest = (
            text.rjust(width) if i in (1, 2) else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([name, steps, layers, *rest]).rstrip())
    return 0
