"""The command line that the examples share: its switches, and how to write one down again.

`command` turns parsed arguments back into a line that can be pasted, which is how an example can
propose the next run: the same switches, with one changed.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import TensorBoardLogger

from examples.learner import OPTIMIZERS, SCHEDULES

#: Switches that say how long and where, not what is trained.
_CIRCUMSTANCES = ("help", "quick", "epochs", "steps", "seed", "logdir")


def make_parser(
    name: str, description: str | None, epochs: int, quick: int, problem: Sequence[str] = ()
) -> Parser:
    """Return a parser with the switches that every example has.

    Args:
        name: Name of the module in `examples`.
        description: Its docstring, shown by `--help`.
        epochs: How long it trains by default.
        quick: How long with `--quick`.
        problem: Switches that say what is to be learned; all others say how.
    """
    parser = Parser(
        prog=f"{tool('python')} -m examples.{name}",
        description=description,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.example = name
    parser.full, parser.short, parser.problem = epochs, quick, tuple(problem)
    run = parser.add_argument_group("the run")
    run.add_argument("--epochs", type=int, help=f"epochs (default: {epochs}, {quick} if --quick)")
    run.add_argument("--steps", type=int, default=-1, help="stop after so many steps (-1: never)")
    run.add_argument("--quick", action="store_true", help="a short run, to see that it works")
    run.add_argument("--seed", type=int, default=0, help="weights, order of batches, dropout")
    run.add_argument("--logdir", type=Path, help=f"(default: runs/{name}/<switches>)")
    return parser


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that knows which example it serves.

    Attributes:
        example: Name of the module in `examples`.
        full: Epochs by default.
        short: Epochs with `--quick`.
        problem: Switches that say what is to be learned.
    """

    example = ""
    full = 1
    short = 1
    problem: tuple[str, ...] = ()


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring's lines, and shows the default of each switch."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        shown = action.default not in (None, argparse.SUPPRESS) and action.nargs != 0
        return text + " (default: %(default)s)" if shown and "default" not in text else text


def add_optimization(parser: Parser, optimizer: str | None = "sgd", lr_note: str = "") -> None:
    """Add `--optimizer`, `--lr`, `--lr-schedule` and `--clip`.

    Args:
        parser: Where to.
        optimizer: The default; None where the example decides.
        lr_note: What `--lr` is without being given; by default each optimizer's own.
    """
    rates = ", ".join(f"{name} {lr:g}" for name, (_, lr) in OPTIMIZERS.items())
    group = parser.add_argument_group("optimization")
    group.add_argument("--optimizer", choices=OPTIMIZERS, default=optimizer, help="algorithm")
    group.add_argument("--lr", type=float, help=f"learning rate (default: {lr_note or rates})")
    group.add_argument("--lr-schedule", choices=SCHEDULES, default="constant", help="its course")
    group.add_argument(
        "--clip", type=float, help="clip the gradient norm at this value (default: no clipping)"
    )


def optimization(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `Learner` among the switches."""
    return {"optimizer": args.optimizer, "lr": args.lr, "lr_schedule": args.lr_schedule}


def trainer_options(parser: Parser, args: argparse.Namespace) -> dict[str, Any]:
    """Return everything that a `Trainer` needs here, besides its callbacks."""
    logdir = args.logdir or Path("runs", parser.example, variant(parser, args))
    epochs = args.epochs or (parser.short if args.quick else parser.full)
    return {
        "max_epochs": epochs,
        "max_steps": args.steps,
        "gradient_clip_val": getattr(args, "clip", None),
        "logger": TensorBoardLogger(logdir, name=""),
        "accelerator": "cpu",  # these networks are so small that a GPU would be slower
        "log_every_n_steps": 10,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }


def command(parser: Parser, args: argparse.Namespace, **changes: Any) -> str:
    """Return the command line that gives these arguments, with some of them changed.

    Example:
        >>> parser = make_parser("mlp", None, epochs=1, quick=1)
        >>> command(parser, parser.parse_args(["--seed", "3"]), epochs=5).partition("examples.")[2]
        'mlp --epochs 5 --seed 3'
    """
    return shlex.join([*shlex.split(parser.prog), *_words(parser, args, **changes)])


def variant(parser: Parser, args: argparse.Namespace) -> str:
    """Return a folder name made of the switches that differ from the default.

    Example:
        >>> parser = make_parser("mlp", None, epochs=1, quick=1)
        >>> add_optimization(parser)
        >>> variant(parser, parser.parse_args([]))
        'default'
        >>> variant(parser, parser.parse_args(["--optimizer", "adam", "--lr", "0.01"]))
        'optimizer-adam_lr-0.01'
    """
    plain = {name: parser.get_default(name) for name in _CIRCUMSTANCES}
    words = _words(parser, args, **plain)
    return "".join(f"_{w[2:]}" if w.startswith("--") else f"-{w}" for w in words)[1:] or "default"


def untreated(parser: Parser, args: argparse.Namespace) -> argparse.Namespace:
    """Return the arguments of the same problem with nothing done about it."""
    kept = {name: getattr(args, name) for name in parser.problem}
    return argparse.Namespace(**{**vars(parser.parse_args([])), **kept})


def _words(parser: Parser, args: argparse.Namespace, **changes: Any) -> list[str]:
    words = []
    for name, value in {**vars(args), **changes}.items():
        if value == parser.get_default(name):
            continue
        switch = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{switch}" if value else f"--no-{switch}")
        else:
            words += [f"--{switch}", f"{value:g}" if isinstance(value, float) else str(value)]
    return words


def tool(name: str) -> str:
    """Return how to call a program of this environment: one in a local `.venv` by its path."""
    here = Path(sys.executable).absolute().with_name(name)
    return str(here.relative_to(Path.cwd())) if here.is_relative_to(Path.cwd()) else name


def quiet() -> None:
    """Silence what Lightning tells about this machine and this data; the progress bar stays.

    Also use one thread: on networks this small several only wait for each other, and on a machine
    that is busy with something else they are fifty times slower.
    """
    torch.set_num_threads(1)
    for name in ("lightning_fabric", "lightning.fabric", "pytorch_lightning"):
        for child in ("", ".utilities.rank_zero", ".utilities.seed"):
            logging.getLogger(name + child).setLevel(logging.ERROR)
    for about in ("does not have many workers", "number of training batches", "LeafSpec"):
        warnings.filterwarnings("ignore", message=f".*{about}.*")
