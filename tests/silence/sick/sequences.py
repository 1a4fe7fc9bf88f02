"""Recurrent nets that forget or blow up, and a transformer that does not start."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.silence.case import Task, Trial, accuracy
from tests.silence.data import batches, digits
from tests.silence.healthy.vision import classify
from tests.silence.sick.illness import sick


class Reader(nn.Module):
    """Reads a sequence, and answers at its end."""

    def __init__(self, rnn: nn.RNNBase, answers: int) -> None:
        super().__init__()
        self.rnn = rnn
        self.head = nn.Linear(rnn.hidden_size, answers)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def first_of(length: int, n: int = 512) -> tuple[Tensor, Tensor]:
    """Return noise, and which of two signs its first value had."""
    x = 0.3 * torch.randn(n, length, 1)
    y = torch.randint(2, (n,))
    x[:, 0, 0] = 2.0 * y - 1
    return x, y


def remember(rnn: nn.RNNBase, length: int, steps: int, lr: float) -> Trial:
    x, y = first_of(length)
    net = Reader(rnn, 2)
    return Trial(
        Task(net, classify, lr=lr),
        batches(x, y, steps=steps),
        lambda: accuracy(net, x, y) - 0.5,
        0.3,
    )


@sick(
    code="vanishing",
    layers=("net.rnn",),
    spared=("net.head",),
    summary=r"dies on its way back through time: in net\.rnn, the first 10 of 100 time steps",
    cause=r"The recurrent weights of RNN\(tanh\) multiply the signal once for every time step, and "
    r"their factor is below one",
    remedy=r"Start the recurrent weights as an orthogonal matrix, which keeps a signal's size: "
    r"nn\.init\.orthogonal_\(net\.rnn\.weight_hh_l0\)\.",
    change={"orthogonal": True},
)
def tanh_rnn_that_must_remember(orthogonal: bool = False) -> Trial:
    """The task of Hochreiter: the first of a hundred values decides."""
    rnn = nn.RNN(1, 24, batch_first=True)
    if orthogonal:
        nn.init.orthogonal_(rnn.weight_hh_l0)
    return remember(rnn, 100, 110, 1e-3)


@sick(
    code="vanishing",
    layers=("net.rnn",),
    summary=r"through time: in net\.rnn",
    cause=r"An LSTM starts with its forget gates half open",
    remedy=r"Open the forget gates at the start: net\.rnn\.bias_ih_l0\.data\[hidden:2 \* hidden\] "
    r"= (?P<forget>\d)\.",
)
def lstm_that_must_remember(forget: float = 0.0) -> Trial:
    lstm = nn.LSTM(1, 16, batch_first=True)
    if forget:
        lstm.bias_ih_l0.data[16:32] = forget
    return remember(lstm, 100, 110, 5e-3)


def add_up(length: int, orthogonal: bool, lr: float = 2e-3) -> Trial:
    """Add up numbers, with recurrent weights from torch.randn, unscaled, and without clipping."""
    x = torch.randn(512, length, 1)
    y = x.sum(1) / length**0.5
    rnn = nn.RNN(1, 32, nonlinearity="relu", batch_first=True)
    (nn.init.orthogonal_ if orthogonal else nn.init.normal_)(rnn.weight_hh_l0)
    net = Reader(rnn, 1)
    task = Task(net, lambda net, x, y: F.mse_loss(net(x), y), lr=lr)
    return Trial(task, batches(x, y, steps=110), lambda: 1 - task.last, 0.5)


@sick(
    code="exploding",
    layers=("net.rnn",),
    summary=r"explodes",
    cause=r"The recurrent weights of RNN\(relu\) multiply the signal once for every time step",
    remedy=r"Start the recurrent weights as an orthogonal matrix: "
    r"nn\.init\.orthogonal_\(net\.rnn\.weight_hh_l0\)\.",
    change={"orthogonal": True},
    also=("nonfinite",),
)
def relu_rnn_that_explodes(orthogonal: bool = False) -> Trial:
    return add_up(16, orthogonal)


@sick(
    code="nonfinite",
    summary=r"The loss turned .* into Inf in the forward pass at step 0, batch 0",
    cause=r"The recurrent weights of RNN\(relu\) multiply the signal once for every time step",
    remedy=r"Start the recurrent weights as an orthogonal matrix: "
    r"nn\.init\.orthogonal_\(net\.rnn\.weight_hh_l0\)\.",
    change={"orthogonal": True},
)
def relu_rnn_that_explodes_at_once(orthogonal: bool = False) -> Trial:
    """Over so many steps that the first loss is not finite."""
    return add_up(60, orthogonal)


class PostNorm(nn.Module):
    """Reads digits row by row; normalises after each residual, as in 2017."""

    def __init__(self, layers: int, norm_first: bool, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.place = nn.Parameter(0.1 * torch.randn(8, width))
        self.blocks = nn.Sequential(
            *[
                nn.TransformerEncoderLayer(
                    width, 2, 64, 0.0, batch_first=True, norm_first=norm_first
                )
                for _ in range(layers)
            ]
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(x[:, 0]) + self.place).mean(1))


@sick(
    code="vanishing",
    layers=("net.embed", "net.blocks.0.linear1"),
    spared=("net.head",),
    summary=r"dies on its way back: the 24 LayerNorm modules from net\.blocks\.0\.norm1 to "
    r"net\.blocks\.11\.norm2",
    cause=r"Layers that normalise after each residual connection \(norm_first=False\)",
    remedy=r"Normalise before each layer, .* norm_first=True\)\.",
    change={"norm_first": True},
    also=("dead_units",),
)
def post_norm_transformer_without_warm_up(norm_first: bool = False) -> Trial:
    """Twelve layers normalised after each residual, and Adam at its full rate from the start."""
    x, y = digits()
    net = PostNorm(12, norm_first)
    task = Task(net, classify, lr=1e-2)
    return Trial(task, batches(x, y, steps=50), lambda: accuracy(net, x[:600], y[:600]), 0.35)


CASES = (
    tanh_rnn_that_must_remember,
    lstm_that_must_remember,
    relu_rnn_that_explodes,
    relu_rnn_that_explodes_at_once,
    post_norm_transformer_without_warm_up,
)
