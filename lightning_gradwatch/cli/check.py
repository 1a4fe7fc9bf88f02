"""`gradwatch check`: pass or fail, for continuous integration."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from lightning_gradwatch.cli.runs import UsageError, called, choose, find_runs, read
from lightning_gradwatch.finding import CODES, Finding, Severity
from lightning_gradwatch.report.verdict import idle, one_line, where

#: Words that stand for all findings of a severity and worse.
LEVELS = {"error": Severity.ERROR, "warning": Severity.WARNING, "info": Severity.INFO}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("logdir", metavar="LOGDIR", help="log directory, or one run's")
    parser.add_argument(
        "--fail-on",
        default="error",
        metavar="WHAT",
        help="error, warning, info, or codes of findings with commas between (default: error). "
        f"Codes: {', '.join(CODES)}, or one of your own with a dot in it",
    )
    parser.add_argument(
        "--run", action="append", default=[], metavar="RUN", help="(default: every run)"
    )
    parser.epilog = "exit code: 0 nothing of the kind, 1 found, 2 it cannot be told"


def parse_fail_on(text: str) -> Callable[[Finding], bool]:
    """Return which findings count.

    Raises:
        UsageError: A word is neither a severity nor a code.
    """
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    known = [*LEVELS, *CODES]
    wrong = [word for word in words if word not in known and "." not in word]
    if wrong or not words:
        shown = ", ".join(map(repr, wrong)) or repr(text)
        raise UsageError(f"--fail-on: {shown} is none of {', '.join(known)}")
    levels = [LEVELS[word] for word in words if word in LEVELS]
    codes = {word for word in words if word not in LEVELS}
    return lambda finding: (
        finding.code.lower() in codes or any(finding.severity >= level for level in levels)
    )


def run(args: argparse.Namespace) -> int:
    """Say for each run whether there is such a finding; return 1 if there is one.

    Raises:
        UsageError: The arguments do not fit what there is, or a run cannot be judged.
    """
    counts = parse_fail_on(args.fail_on)
    found = find_runs(args.logdir)
    failed = False
    for name, folder in (choose(found, args.run) if args.run else found).items():
        recording, label = read(name, folder), called(name, folder)
        for problem in recording.problems:
            print(f"gradwatch: {label}: {problem}", file=sys.stderr)
        if not recording.recorded and not recording.findings:
            # A run that says nothing is no proof of health.
            raise UsageError(f"{label}: no step has been recorded, so there is nothing to judge")
        bad = [finding for finding in recording.findings if counts(finding)]
        why = idle(recording.layer_max, recording.layer_nonfinite)
        if why and not bad:
            raise UsageError(f"{label}: {why}, so there is nothing to judge")
        failed = failed or bool(bad)
        print(f"{'FAIL' if bad else 'ok':<4}  {label}")
        for finding in bad:
            print(f"      {finding.severity.name} {finding.code} · {where(finding)}")
            if finding.summary:
                print(f"      {one_line(finding.summary)}")
    return int(failed)
