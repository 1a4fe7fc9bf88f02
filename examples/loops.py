"""What the examples without a Trainer share: a plain network, its score, the last lines they print.

The network is that of `examples.mlp`, without a line of Lightning: six sigmoid layers, which leave
2e-05 of the gradient to the first, or with BatchNorm nearly all of it.
"""

from __future__ import annotations

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from examples import digits
from examples.options import Parser, command, make_parser, tool, variant
from examples.result import diagnosis
from lightning_gradwatch import GradientWatcher


@dataclass(frozen=True)
class Trained:
    """What a loop leaves behind.

    Attributes:
        watch: What was seen.
        score: Accuracy on the validation data, 0 to 1.
        log_dir: Where the recording lies.
    """

    watch: GradientWatcher
    score: float
    log_dir: Path


def network(batch_norm: bool, depth: int = 6, width: int = 64) -> nn.Sequential:
    """Return hidden layers of sigmoids between 64 pixels and ten classes.

    Args:
        batch_norm: Normalise before each sigmoid.
        depth: Number of hidden layers.
        width: Units in each.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = digits.SHAPES["vectors"][0]
    for i in range(depth):
        layers[f"linear{i}"] = nn.Linear(inputs, width)
        if batch_norm:
            layers[f"norm{i}"] = nn.BatchNorm1d(width)
        layers[f"sigmoid{i}"] = nn.Sigmoid()
        inputs = width
    layers["output"] = nn.Linear(inputs, digits.CLASSES)
    return nn.Sequential(layers)


def loop_parser(name: str, description: str | None) -> Parser:
    """Return the switches of an example that has a loop of its own."""
    parser = make_parser(name, description, epochs=100, quick=5)
    parser.add_argument("--batch-norm", action="store_true", help="the cure")
    parser.add_argument("--lr", type=float, default=0.05, help="learning rate of plain SGD")
    return parser


def folder(parser: Parser, args: Namespace) -> Path:
    """Return where a run is recorded."""
    return args.logdir or Path("runs", parser.example, variant(parser, args))


def batches(parser: Parser, args: Namespace, loader: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches of all epochs, one after the other."""
    for _ in range(args.epochs or (parser.short if args.quick else parser.full)):
        yield from loader


@torch.no_grad()
def accuracy(net: nn.Module, validation: DataLoader) -> float:
    """Return the share of the validation data that is classified rightly."""
    net.eval()
    rightly = [(net(x).argmax(1) == y).float() for x, y in validation]
    return float(torch.cat(rightly).mean())


def tell(parser: Parser, args: Namespace, result: Trained) -> None:
    """Print the score, what GradWatch found, and what to try next."""
    print(f"\n{command(parser, args)}")
    print(f"  accuracy {result.score:.1%} (guessing: {1 / digits.CLASSES:.0%})")
    for line in diagnosis(result.watch):
        print(f"  {line}")
    print("What you could try next:")
    why = "without it, to see it fail" if args.batch_norm else "normalise before each activation"
    print(f"  {command(parser, args, batch_norm=not args.batch_norm)}\n      {why}")
    print(f"  {tool('gradwatch')} report {result.log_dir}\n      every layer, in the terminal")
    print(f"  {tool('tensorboard')} --logdir {result.log_dir}\n      the map, in the GradWatch tab")
