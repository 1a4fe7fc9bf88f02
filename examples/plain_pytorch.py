"""A training loop of your own, without Lightning: one `with`, and one line before each step.

    python -m examples.plain_pytorch                   # sick: six sigmoid layers
    python -m examples.plain_pytorch --batch-norm      # cured
    python -m examples.plain_pytorch --accumulate 4    # one step for every four batches

`GradientWatcher` measures what `GradWatch` measures, to the bit, and takes the same detectors,
actions and reporters. Mixed precision needs one argument more, `scaler=`.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started as `python examples/plain_pytorch.py`
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.nn.functional import cross_entropy

from examples import digits
from examples.loops import Trained, accuracy, batches, folder, loop_parser, network, tell
from examples.options import Parser, quiet
from lightning_gradwatch import GradientWatcher


def make_arguments() -> Parser:
    """Return the command line of this example."""
    parser = loop_parser("plain_pytorch", __doc__)
    parser.add_argument("--accumulate", type=int, default=1, help="batches for each step")
    return parser


def train(args: Namespace) -> Trained:
    """Train and validate; return what GradWatch saw and the accuracy."""
    torch.manual_seed(args.seed)
    net = network(args.batch_norm)
    sgd = torch.optim.SGD(net.parameters(), args.lr)
    training, validation = digits.loaders("vectors")
    log_dir = folder(make_arguments(), args)

    with GradientWatcher(net, sgd, record=log_dir / "gradwatch") as watcher:
        waiting: list[torch.Tensor] = []
        for x, y in batches(make_arguments(), args, training):
            loss = cross_entropy(net(x), y) / args.accumulate
            loss.backward()
            waiting.append(loss.detach())
            if len(waiting) < args.accumulate:
                continue
            watcher.step(loss=torch.stack(waiting).sum())  # before you clip, and before the step
            sgd.step()
            sgd.zero_grad()
            waiting.clear()
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
