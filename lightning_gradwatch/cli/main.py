"""The command `gradwatch`. Commands are imported when they are called, so that each starts fast."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from lightning_gradwatch.version import __version__

#: Commands, where they are, and what they do.
COMMANDS = {
    "report": ("report", "say what is wrong with a run: text, markdown, JSON, or the whole view"),
    "check": ("check", "exit with 1 if something is wrong, for continuous integration"),
    "ls": ("listing", "list the runs below a log directory"),
    "demo": ("demo", "train a small network that is sick, or cured, and say what is wrong"),
    "replay": ("replay", "say how to run a saved batch again"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command.

    Args:
        argv: The arguments; None for those of the process.

    Returns:
        The exit code: 0 all is well, 1 there are findings (`check`), 2 it cannot be done.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="gradwatch", description="What gradients did in a training run."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    given = next((word for word in words if not word.startswith("-")), "")
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + "."
        )
        if name == given:
            part = importlib.import_module(f"lightning_gradwatch.cli.{module}")
            part.add_arguments(command)
            command.set_defaults(carry_out=part.run)
    args = parser.parse_args(words)
    from lightning_gradwatch.cli.runs import UsageError

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a name that the terminal cannot show
    try:
        code: int = args.carry_out(args)
        sys.stdout.flush()
    except UsageError as error:
        print(f"gradwatch {args.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader has seen enough, as `head` does; nothing is left to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
