"""The same loop under Lightning Fabric, which brings devices, precision and strategies.

    python -m examples.fabric                           # sick: six sigmoid layers
    python -m examples.fabric --batch-norm              # cured
    python -m examples.fabric --precision bf16-mixed    # in bfloat16 where that is enough

The model and the optimizer that `fabric.setup` returns go into `GradientWatcher` as they are;
layers keep the names that you gave them.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started as `python examples/fabric.py`
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from lightning_fabric import Fabric
from torch.nn.functional import cross_entropy

from examples import digits
from examples.loops import Trained, accuracy, batches, folder, loop_parser, network, tell
from examples.options import Parser, quiet
from lightning_gradwatch import GradientWatcher


def make_arguments() -> Parser:
    """Return the command line of this example."""
    parser = loop_parser("fabric", __doc__)
    parser.add_argument(
        "--precision", choices=["32-true", "bf16-mixed"], default="32-true", help="of the numbers"
    )
    return parser


def train(args: Namespace) -> Trained:
    """Train and validate; return what GradWatch saw and the accuracy."""
    fabric = Fabric(accelerator="cpu", devices=1, precision=args.precision)
    fabric.seed_everything(args.seed)
    net = network(args.batch_norm)
    model, sgd = fabric.setup(net, torch.optim.SGD(net.parameters(), args.lr))
    training, validation = digits.loaders("vectors")
    training = fabric.setup_dataloaders(training)
    log_dir = folder(make_arguments(), args)

    with GradientWatcher(model, sgd, record=log_dir / "gradwatch") as watcher:
        for x, y in batches(make_arguments(), args, training):
            loss = cross_entropy(model(x), y)
            sgd.zero_grad()
            fabric.backward(loss)
            watcher.step(loss=loss)  # before fabric.clip_gradients, and before the step
            sgd.step()
            if watcher.history.recorded == args.steps:
                break
    return Trained(watcher, accuracy(net, validation), log_dir)


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says, and tell how it went."""
    parser = make_arguments()
    args = parser.parse_args(argv)
    quiet()
    tell(parser, args, train(args))


if __name__ == "__main__":
    main()
