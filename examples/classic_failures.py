"""Two failures that every course shows, each with the setting that makes it train.

`overflow`: linear regression of i² on i for i = 1..1000. The loss has a curvature of about 10⁶, so
that plain SGD multiplies its error by thousands with every step and is Inf after a handful; scaled
data, or a learning rate of 1e-7, converge (LeCun et al. 1998). `saturation`: a 1000-100-1 network
of tanh and sigmoid with unit-normal weights, fed 1..1000 at half to full strength, to tell how
strong. Every tanh is at plus or minus one at any strength, so that no gradient passes and nothing
can be learned. Scaled input cures it; weights scaled by Xavier's rule alone do not, as that rule
takes inputs of about one for granted (Glorot and Bengio 2010).

    python -m examples.classic_failures                    # both, each sick and cured
    python -m examples.classic_failures --case overflow --lr 1e-7
    python -m examples.classic_failures --case saturation --scale

References:
    - LeCun, Bottou, Orr and Müller (1998), Efficient BackProp
    - Glorot and Bengio (2010), https://proceedings.mlr.press/v9/glorot10a.html
"""

from __future__ import annotations

import sys
from argparse import BooleanOptionalAction, Namespace
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started as `python examples/classic_failures.py`
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from pytorch_lightning import Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from examples.learner import Regressor
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

#: The switch that cures each case.
CURES: dict[str, str] = {"overflow": "--scale", "saturation": "--scale"}


class Line(Regressor):
    """One weight and one bias."""

    def __init__(self, **optimization: object) -> None:
        super().__init__(**optimization)
        self.linear = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 1) to (batch, 1)."""
        return self.linear(x)


class Perceptron(Regressor):
    """1000 inputs, 100 tanh units, one sigmoid output.

    Args:
        init: `"normal"` for unit-normal weights, `"xavier"` for weights scaled by the layer's size.
        **optimization: See `examples.learner.Learner`.
    """

    def __init__(self, init: str = "normal", **optimization: object) -> None:
        super().__init__(**optimization)
        self.hidden = nn.Linear(1000, 100)
        self.tanh = nn.Tanh()
        self.output = nn.Linear(100, 1)
        self.sigmoid = nn.Sigmoid()
        for layer in (self.hidden, self.output):
            if init == "normal":
                nn.init.normal_(layer.weight)
            else:
                nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 1000) to (batch, 1), between 0 and 1."""
        return self.sigmoid(self.output(self.tanh(self.hidden(x))))


def dataset(case: str, scale: bool) -> TensorDataset:
    """Return the 1000 samples of a case.

    Args:
        case: `"overflow"`: x = i, y = i². `"saturation"`: x = (1 + y) / 2 · (1..1000), for y from
            0.001 to 1.
        scale: Standardise x and y (overflow), divide x by 1000 (saturation).
    """
    i = torch.arange(1.0, 1001.0)
    if case == "overflow":
        x, y = i[:, None], i[:, None] ** 2
        if scale:
            x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
        return TensorDataset(x, y)
    y = i[:, None] / 1000
    return TensorDataset((1 + y) / 2 * i / (1000 if scale else 1), y)


#: What can be tried, best first by measurement (see README.md).
REMEDIES: tuple[Remedy, ...] = (
    Remedy(
        ("exploding", "nonfinite", "oscillating"),
        "scale input and target to about one",
        lambda args, lr: {"scale": True},
    ),
    Remedy(
        ("exploding", "nonfinite", "oscillating"),
        "a learning rate below 2 over the curvature, here 2 x mean(i²)",
        lambda args, lr: {"lr": 1e-7} if args.case == "overflow" and not args.scale else {},
    ),
    Remedy(
        ("vanishing", "saturated", "stalled"),
        "scale the input to about one",
        lambda args, lr: {"scale": True},
    ),
    Remedy(
        ("vanishing", "saturated"),
        "and weights to match the number of inputs (Glorot and Bengio 2010)",
        lambda args, lr: {"scale": True, "init": "xavier"} if args.case == "saturation" else {},
    ),
    *TAMING,
)


def make_arguments() -> Parser:
    """Return the command line of this example."""
    parser = make_parser("classic_failures", __doc__, epochs=50, quick=5, problem=["case"])
    net = parser.add_argument_group("the failure")
    net.add_argument("--case", choices=CURES, help="(default: both, each sick and cured)")
    net.add_argument("--scale", action=BooleanOptionalAction, default=False)
    net.add_argument(
        "--init",
        choices=("normal", "xavier"),
        default="normal",
        help="of the saturated net",
    )
    add_optimization(parser)
    return parser


def build(args: Namespace) -> Regressor:
    """Return the network that the switches describe."""
    if args.case == "overflow":
        return Line(**optimization(args))
    return Perceptron(args.init, **optimization(args))


def train(args: Namespace) -> Result:
    """Train one case; return what GradWatch saw and R² on the same thousand samples."""
    seed_everything(args.seed)
    model = build(args)
    data = dataset(args.case, args.scale)
    training = DataLoader(data, batch_size=50, shuffle=True)
    everything = DataLoader(data, batch_size=len(data))

    watch = GradWatch()
    trainer = Trainer(callbacks=[watch], **trainer_options(make_arguments(), args))
    trainer.fit(model, training, everything)
    return Result.of(trainer, model, watch, everything)


def main(argv: Sequence[str] | None = None) -> None:
    """Train one case as the command line says, or all of them, and tell how it went."""
    parser = make_arguments()
    words = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(words)
    quiet()
    runs = [words]
    if args.case is None:
        runs = [[*words, "--case", c, *cure] for c in CURES for cure in ([], [CURES[c]])]
    for run in runs:
        args = parser.parse_args(run)
        tell(parser, args, train(args), REMEDIES)


if __name__ == "__main__":
    main()
