"""Plain and residual stacks of equal depth: the plain one does not train, the residual one does.

Each convolution multiplies the error signal by its own factor, and 24 factors below one leave
nothing for the first. A residual block adds its input to its output, so that the signal has a
direct way back past every block (He et al. 2016). Batch normalisation rescales the signal at every
layer instead (Ioffe and Szegedy 2015). Both are switches here, so that each can be tried alone.

    python -m examples.residual                     # sick: 24 plain convolutions
    python -m examples.residual --residual          # cured
    python -m examples.residual --batch-norm        # cured as well at this depth

References:
    - He et al. (2016), Deep residual learning, https://arxiv.org/abs/1512.03385
    - Ioffe and Szegedy (2015), Batch normalization, https://arxiv.org/abs/1502.03167
"""

from __future__ import annotations

import sys
from argparse import BooleanOptionalAction, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as `python examples/residual.py`
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pytorch_lightning import Trainer, seed_everything
from torch import Tensor, nn

from examples import digits
from examples.learner import Classifier
from examples.options import (
    Parser,
    add_optimization,
    make_parser,
    optimization,
    quiet,
    trainer_options,
)
from examples.result import TAMING, Remedy, Result, tell
from lightning_gradwatch import GradWatch


class Block(nn.Module):
    """Two 3x3 convolutions, each followed by ReLU; with `residual` the input is added to the sum.

    Args:
        channels: Feature maps in and out.
        residual: Add the input before the last ReLU, as in the original paper.
        batch_norm: Normalise after each convolution.
    """

    def __init__(self, channels: int, residual: bool, batch_norm: bool) -> None:
        super().__init__()

        def convolution() -> nn.Conv2d:
            # A bias before BatchNorm is subtracted again and would never get a gradient.
            return nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=not batch_norm)

        self.residual = residual
        self.conv1 = convolution()
        self.norm1 = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
        self.relu1 = nn.ReLU()
        self.conv2 = convolution()
        self.norm2 = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map features (batch, channels, 8, 8) to the same shape."""
        out = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        return self.relu2(x + out if self.residual else out)


class ConvStack(Classifier):
    """A stem, equal blocks of two convolutions, and a linear head on the mean of each map.

    Args:
        depth: Convolutions in the blocks, an even number.
        channels: Feature maps.
        residual: See `Block`.
        batch_norm: See `Block`.
        **optimization: See `examples.learner.Learner`.

    Raises:
        ValueError: `depth` is odd or below two.
    """

    def __init__(
        self,
        depth: int = 24,
        channels: int = 16,
        residual: bool = False,
        batch_norm: bool = False,
        **optimization: Any,
    ) -> None:
        if depth < 2 or depth % 2:
            raise ValueError(f"depth must be even (two convolutions in a block), got {depth}")
        super().__init__(digits.CLASSES, **optimization)
        self.stem = nn.Conv2d(1, channels, kernel_size=3, padding=1)
        self.blocks = nn.Sequential(
            *(Block(channels, residual, batch_norm) for _ in range(depth // 2))
        )
        self.head = nn.Linear(channels, digits.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, 1, 8, 8) to logits (batch, 10)."""
        return self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))


#: What can be tried, best first by measurement (see README.md).
REMEDIES: tuple[Remedy, ...] = (
    Remedy(
        ("vanishing",),
        "add each block's input to its output: a direct way back (He et al. 2016)",
        lambda args, lr: {"residual": True},
    ),
    Remedy(
        ("vanishing", "exploding"),
        "normalise after each convolution (Ioffe and Szegedy 2015)",
        lambda args, lr: {"batch_norm": True},
    ),
    Remedy(
        ("vanishing",),
        "fewer layers for the error signal to pass",
        lambda args, lr: {"depth": max(2, args.depth // 4 * 2)},
    ),
    *TAMING,
)


def make_arguments() -> Parser:
    """Return the command line of this example."""
    parser = make_parser("residual", __doc__, epochs=20, quick=3)
    net = parser.add_argument_group("the network")
    net.add_argument("--depth", type=int, default=24, help="convolutions in the blocks, even")
    net.add_argument("--residual", action=BooleanOptionalAction, default=False)
    net.add_argument("--batch-norm", action=BooleanOptionalAction, default=False)
    add_optimization(parser, optimizer="adam")
    return parser


def build(args: Namespace) -> ConvStack:
    """Return the network that the switches describe."""
    return ConvStack(
        depth=args.depth, residual=args.residual, batch_norm=args.batch_norm, **optimization(args)
    )


def train(args: Namespace) -> Result:
    """Train and validate; return what GradWatch saw and the accuracy."""
    seed_everything(args.seed)
    model = build(args)
    training, validation = digits.loaders("images")

    watch = GradWatch()
    trainer = Trainer(callbacks=[watch], **trainer_options(make_arguments(), args))
    trainer.fit(model, training, validation)
    return Result.of(trainer, model, watch, validation, chance=1 / digits.CLASSES)


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says, and tell how it went."""
    parser = make_arguments()
    args = parser.parse_args(argv)
    quiet()
    tell(parser, args, train(args), REMEDIES)


if __name__ == "__main__":
    main()
