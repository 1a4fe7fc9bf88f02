"""A deep sigmoid network trained by plain SGD: the early layers get nothing, and it guesses.

A sigmoid's slope is at most 1/4, so each layer passes on less than a quarter of the error signal,
and after a few layers nothing is left (Hochreiter 1991; Glorot and Bengio 2010). Other
activations, initialisation to match (He et al. 2015), and normalisation (Ioffe and Szegedy 2015)
keep the signal alive. Every remedy is one switch here, so that each can be tried alone.

    python -m examples.mlp                          # sick: six sigmoid layers
    python -m examples.mlp --batch-norm             # cured
    python -m examples.mlp --activation relu --init he

References:
    - Glorot and Bengio (2010), https://proceedings.mlr.press/v9/glorot10a.html
    - He et al. (2015), Delving deep into rectifiers, https://arxiv.org/abs/1502.01852
    - Ioffe and Szegedy (2015), Batch normalization, https://arxiv.org/abs/1502.03167
    - Salimans and Kingma (2016), Weight normalization, https://arxiv.org/abs/1602.07868
"""

from __future__ import annotations

import sys
from argparse import BooleanOptionalAction, Namespace
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as `python examples/mlp.py`
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from pytorch_lightning import Trainer, seed_everything
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

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

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
}

INITS = ("default", "xavier", "he", "small", "large")


@torch.no_grad()
def initialise(linear: nn.Linear, init: str, activation: str) -> None:
    """Set the weights of one layer.

    Args:
        linear: The layer.
        init: `"default"` leaves PyTorch's; `"xavier"` and `"he"` keep the signal's size for
            tanh-like and ReLU-like activations; `"small"` and `"large"` are the two classic
            mistakes, normal with deviation 0.01 and 1.
        activation: What follows the layer; it sets the gain of Xavier's rule.
    """
    if init == "xavier":
        gain = nn.init.calculate_gain(activation) if activation in ("sigmoid", "tanh") else 1.0
        nn.init.xavier_normal_(linear.weight, gain)
    elif init == "he":
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
    elif init in ("small", "large"):
        nn.init.normal_(linear.weight, std=0.01 if init == "small" else 1.0)
    if init != "default":
        nn.init.zeros_(linear.bias)


class MLP(Classifier):
    """Equal hidden layers between 64 pixels and ten classes.

    Args:
        depth: Number of hidden layers.
        width: Units in each.
        activation: A key of `ACTIVATIONS`.
        init: One of `INITS`.
        batch_norm: Normalise before each activation.
        dropout: Probability of zeroing a unit, 0 for none.
        use_weight_norm: Reparametrise each hidden weight into direction and length.
        **optimization: See `examples.learner.Learner`.
    """

    def __init__(
        self,
        depth: int = 6,
        width: int = 64,
        activation: str = "sigmoid",
        init: str = "default",
        batch_norm: bool = False,
        dropout: float = 0.0,
        use_weight_norm: bool = False,
        **optimization: Any,
    ) -> None:
        super().__init__(digits.CLASSES, **optimization)
        blocks, inputs = [], digits.SHAPES["vectors"][0]
        for _ in range(depth):
            linear = nn.Linear(inputs, width)
            initialise(linear, init, activation)
            block: OrderedDict[str, nn.Module] = OrderedDict(
                linear=weight_norm(linear) if use_weight_norm else linear
            )
            if batch_norm:
                block["norm"] = nn.BatchNorm1d(width)
            block["activation"] = ACTIVATIONS[activation]()
            if dropout:
                block["dropout"] = nn.Dropout(dropout)
            blocks.append(nn.Sequential(block))
            inputs = width
        self.hidden = nn.Sequential(*blocks)
        self.output = nn.Linear(inputs, digits.CLASSES)
        initialise(self.output, init, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map pixels (batch, 64) to logits (batch, 10)."""
        return self.output(self.hidden(x))


#: What can be tried, best first by measurement (see README.md).
REMEDIES: tuple[Remedy, ...] = (
    Remedy(
        ("vanishing", "saturated"),
        "normalise before each activation (Ioffe and Szegedy 2015)",
        lambda args, lr: {"batch_norm": True},
    ),
    Remedy(
        ("vanishing", "saturated"),
        "an activation whose slope is one, with weights to match (He et al. 2015)",
        lambda args, lr: {"activation": "relu", "init": "he"},
    ),
    Remedy(
        ("vanishing", "saturated"),
        "an activation that is steep around zero, with weights to match (Glorot and Bengio 2010)",
        lambda args, lr: {"activation": "tanh", "init": "xavier"},
    ),
    Remedy(
        ("vanishing",),
        "fewer layers for the error signal to pass",
        lambda args, lr: {"depth": max(1, args.depth // 2)},
    ),
    Remedy(
        ("exploding", "nonfinite"),
        "weights of a size that keeps the signal's",
        lambda args, lr: {"init": "he" if "relu" in args.activation else "xavier"},
    ),
    *TAMING,
)


def make_arguments() -> Parser:
    """Return the command line of this example."""
    parser = make_parser("mlp", __doc__, epochs=100, quick=5)
    net = parser.add_argument_group("the network")
    net.add_argument("--depth", type=int, default=6, help="hidden layers")
    net.add_argument("--activation", choices=ACTIVATIONS, default="sigmoid", help="after each")
    net.add_argument("--init", choices=INITS, default="default", help="initial weights")
    net.add_argument("--batch-norm", action=BooleanOptionalAction, default=False)
    net.add_argument("--dropout", type=float, default=0.0, help="probability of dropping a unit")
    net.add_argument("--weight-norm", action=BooleanOptionalAction, default=False)
    add_optimization(parser)
    return parser


def build(args: Namespace) -> MLP:
    """Return the network that the switches describe."""
    return MLP(
        depth=args.depth,
        activation=args.activation,
        init=args.init,
        batch_norm=args.batch_norm,
        dropout=args.dropout,
        use_weight_norm=args.weight_norm,
        **optimization(args),
    )


def train(args: Namespace) -> Result:
    """Train and validate; return what GradWatch saw and the accuracy."""
    seed_everything(args.seed)
    model = build(args)
    training, validation = digits.loaders("vectors")

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
