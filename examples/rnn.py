"""A tanh RNN that has to remember: the error signal dies on its way back through 64 time steps.

Backpropagation through time multiplies the error signal by the recurrent weights once for every
step; unless that factor is close to one, the signal vanishes or explodes exponentially (Hochreiter
and Schmidhuber 1997; Pascanu et al. 2013). Gates that are held open (LSTM, GRU), or recurrent
weights that start as the identity (Le et al. 2015), keep the factor near one. Batch normalisation
on the input-to-hidden path (Laurent et al. 2015) does not touch that factor, and so cannot help.

    python -m examples.rnn                              # sick: tanh RNN, PyTorch's initialisation
    python -m examples.rnn --recurrent-init orthogonal  # cured by initialisation alone
    python -m examples.rnn --cell gru                   # cured by gates
    python -m examples.rnn --task adding --length 100   # Hochreiter and Schmidhuber's own test

The input runs through a learnable projection in front of the recurrent module. GradWatch measures
the gradient that arrives there, one norm for each time step: the early steps show what is lost.

References:
    - Hochreiter and Schmidhuber (1997), Long short-term memory
    - Pascanu, Mikolov and Bengio (2013), https://arxiv.org/abs/1211.5063
    - Le, Jaitly and Hinton (2015), https://arxiv.org/abs/1504.00941
    - Laurent et al. (2015), Batch normalized recurrent neural networks,
      https://arxiv.org/abs/1510.01378
    - Tallec and Ollivier (2018), Can recurrent neural networks warp time?, on gate biases,
      https://arxiv.org/abs/1804.11188
"""

from __future__ import annotations

import sys
from argparse import BooleanOptionalAction, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as `python examples/rnn.py`
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from pytorch_lightning import Trainer, seed_everything
from torch import Tensor, nn

from examples import adding, digits
from examples.learner import Classifier, Learner, Regressor
from examples.options import (
    Parser,
    add_optimization,
    make_parser,
    quiet,
    trainer_options,
)
from examples.result import TAMING, Remedy, Result, tell
from lightning_gradwatch import GradWatch

CELLS: dict[str, Any] = {
    "rnn_tanh": lambda n, h: nn.RNN(n, h, nonlinearity="tanh", batch_first=True),
    "rnn_relu": lambda n, h: nn.RNN(n, h, nonlinearity="relu", batch_first=True),
    "lstm": lambda n, h: nn.LSTM(n, h, batch_first=True),
    "gru": lambda n, h: nn.GRU(n, h, batch_first=True),
}

RECURRENT_INITS = ("default", "orthogonal", "identity")

#: Learning rates for cells without gates and with them: a gate passes on a fraction of the
#: gradient to each weight, so that the same rate would hardly move an LSTM.
LEARNING_RATES = {"sgd": (0.03, 0.5), "adam": (0.001, 0.002)}


@torch.no_grad()
def initialise(cell: nn.RNNBase, recurrent_init: str, gate_bias: float) -> None:
    """Set the recurrent weights and the gate that keeps the memory.

    Args:
        cell: The recurrent module.
        recurrent_init: `"default"` leaves PyTorch's, which shrink the state to 0.58 of its size
            with every step; `"orthogonal"` keeps its size; `"identity"` copies it.
        gate_bias: For LSTM the bias of the forget gate, for GRU that of the update gate, which
            decide how much of the state survives a step: at 0 a half, at 2.5 about 92 %.
    """
    for block in cell.weight_hh_l0.split(cell.hidden_size):
        if recurrent_init == "orthogonal":
            nn.init.orthogonal_(block)
        elif recurrent_init == "identity":
            nn.init.eye_(block)
    if recurrent_init == "identity":
        nn.init.zeros_(cell.bias_ih_l0)
        nn.init.zeros_(cell.bias_hh_l0)
    if isinstance(cell, (nn.LSTM, nn.GRU)):
        # The second block in PyTorch's order is the forget gate of the one (i, f, g, o) and the
        # update gate of the other (r, z, n). The two biases are added, so that one is enough.
        gate = slice(cell.hidden_size, 2 * cell.hidden_size)
        nn.init.constant_(cell.bias_ih_l0[gate], gate_bias)
        nn.init.zeros_(cell.bias_hh_l0[gate])


class Recurrent(Learner):
    """Projection, optional BatchNorm, recurrent module, and a linear head on its last output.

    Args:
        inputs: Features of one time step.
        outputs: Numbers to predict from the last time step.
        hidden: Units of the recurrent state.
        cell: A key of `CELLS`.
        recurrent_init: See `initialise`.
        gate_bias: See `initialise`.
        batch_norm: Normalise the input-to-hidden path over batch and time.
        **optimization: See `examples.learner.Learner`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: int = 64,
        cell: str = "rnn_tanh",
        recurrent_init: str = "default",
        gate_bias: float = 2.5,
        batch_norm: bool = False,
        **optimization: Any,
    ) -> None:
        super().__init__(**optimization)
        self.projection = nn.Linear(inputs, hidden)
        self.norm = nn.BatchNorm1d(hidden) if batch_norm else nn.Identity()
        self.rnn = CELLS[cell](hidden, hidden)
        self.head = nn.Linear(hidden, outputs)
        initialise(self.rnn, recurrent_init, gate_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map sequences (batch, time, inputs) to predictions (batch, outputs)."""
        drive = self.projection(x)
        drive = self.norm(drive.flatten(0, 1)).view_as(drive)
        states, _ = self.rnn(drive)
        return self.head(states[:, -1])


class DigitReader(Recurrent, Classifier):
    """Sees a digit pixel by pixel and says at the end which one it was."""


class Adder(Recurrent, Regressor):
    """Hears numbers one by one and says at the end the sum of the two that were marked."""


#: What can be tried, best first by measurement (see README.md).
REMEDIES: tuple[Remedy, ...] = (
    Remedy(
        ("vanishing",),
        "recurrent weights that keep the state's size",
        lambda args, lr: (
            {"recurrent_init": "orthogonal"}
            if args.cell == "rnn_tanh" and args.task == "digits"  # it fails at adding: README.md
            else {}
        ),
    ),
    Remedy(
        ("vanishing",),
        "gates that keep the state (Hochreiter and Schmidhuber 1997)",
        lambda args, lr: {"cell": "lstm", "lr": None} if args.cell.startswith("rnn") else {},
    ),
    Remedy(
        ("vanishing",),
        "gates, with fewer weights (Cho et al. 2014)",
        lambda args, lr: {"cell": "gru", "lr": None} if args.cell.startswith("rnn") else {},
    ),
    Remedy(
        ("vanishing",),
        "recurrent weights that start as the identity (Le et al. 2015)",
        lambda args, lr: (
            {"cell": "rnn_relu", "recurrent_init": None} if args.cell.startswith("rnn") else {}
        ),
    ),
    Remedy(
        ("vanishing",),
        "gates that start open (Tallec and Ollivier 2018)",
        lambda args, lr: {"gate_bias": 2.5} if args.gate_bias < 2.5 else {},
    ),
    *TAMING,
)


def make_arguments() -> Parser:
    """Return the command line of this example."""
    parser = make_parser("rnn", __doc__, epochs=40, quick=4, problem=["task", "length"])
    task = parser.add_argument_group("the task")
    task.add_argument("--task", choices=("digits", "adding"), default="digits", help="to learn")
    task.add_argument("--length", type=int, default=64, help="time steps of the adding problem")
    net = parser.add_argument_group("the network")
    net.add_argument("--cell", choices=CELLS, default="rnn_tanh", help="recurrent module")
    net.add_argument(
        "--recurrent-init",
        choices=RECURRENT_INITS,
        help="recurrent weights (default: identity for rnn_relu, else PyTorch's default)",
    )
    net.add_argument(
        "--gate-bias", type=float, default=2.5, help="of LSTM's forget and GRU's update gate"
    )
    net.add_argument(
        "--batch-norm",
        action=BooleanOptionalAction,
        default=False,
        help="normalise the input-to-hidden path (Laurent et al. 2015); it speeds up what learns "
        "already, and does not cure vanishing, which happens on the path from state to state",
    )
    rates = "; ".join(f"{o} {a:g}, with gates {b:g}" for o, (a, b) in LEARNING_RATES.items())
    add_optimization(parser, optimizer=None, lr_note=f"{rates}; others their own")
    parser.set_defaults(clip=1.0)
    return parser


def build(args: Namespace) -> Recurrent:
    """Return the network that the switches describe."""
    optimizer = args.optimizer or ("adam" if args.task == "adding" else "sgd")
    lr = args.lr
    if lr is None and optimizer in LEARNING_RATES:
        lr = LEARNING_RATES[optimizer][args.cell in ("lstm", "gru")]
    shape: dict[str, Any] = {
        "cell": args.cell,
        "recurrent_init": args.recurrent_init
        or ("identity" if args.cell == "rnn_relu" else "default"),
        "gate_bias": args.gate_bias,
        "batch_norm": args.batch_norm,
        "optimizer": optimizer,
        "lr": lr,
        "lr_schedule": args.lr_schedule,
    }
    if args.task == "adding":
        return Adder(inputs=2, outputs=1, **shape)
    return DigitReader(inputs=1, outputs=digits.CLASSES, **shape)


def train(args: Namespace) -> Result:
    """Train and validate; return what GradWatch saw and the accuracy or R²."""
    seed_everything(args.seed)
    model = build(args)
    adds = args.task == "adding"
    training, validation = adding.loaders(args.length) if adds else digits.loaders("sequences")

    watch = GradWatch()
    trainer = Trainer(callbacks=[watch], **trainer_options(make_arguments(), args))
    trainer.fit(model, training, validation)
    chance = 0.0 if adds else 1 / digits.CLASSES
    return Result.of(trainer, model, watch, validation, chance)


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says, and tell how it went."""
    parser = make_arguments()
    args = parser.parse_args(argv)
    quiet()
    tell(parser, args, train(args), REMEDIES)


if __name__ == "__main__":
    main()
