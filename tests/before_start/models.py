"""Models as they start: healthy ones of many kinds, and ill ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Case = tuple[nn.Module, Any, Callable[..., Tensor] | None]


def deep(
    activation: type[nn.Module], layers: int, width: int = 32, gain: float | None = None
) -> nn.Sequential:
    modules: list[nn.Module] = []
    for _ in range(layers):
        linear = nn.Linear(width, width)
        if gain is not None:
            nn.init.xavier_normal_(linear.weight, gain)
            nn.init.zeros_(linear.bias)
        modules += [linear, activation()]
    return nn.Sequential(*modules, nn.Linear(width, 1))


def numbers(n: int = 32, width: int = 32, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, width)
    return scale * x, x.sum(1, keepdim=True).sin()


class Block(nn.Module):
    """A residual block; `gate`: 0 starts closed (ReZero), None has no gate."""

    def __init__(self, width: int, gate: float | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 64), nn.Linear(64, width)
        self.gate = None if gate is None else nn.Parameter(torch.tensor(gate))

    def forward(self, x: Tensor) -> Tensor:
        h = self.down(F.gelu(self.up(self.norm(x))))
        return x + (h if self.gate is None else self.gate * h)


class ConvBlock(nn.Module):
    """ResNet's, with the scale of the last norm at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.na, self.nb = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        nn.init.zeros_(self.nb.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.nb(self.b(F.relu(self.na(self.a(x))))))


class LoRA(nn.Module):
    def __init__(self, width: int, rank: int = 4) -> None:
        super().__init__()
        self.base = nn.Linear(width, width).requires_grad_(False)
        self.a, self.b = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.b(self.a(x))


class Sequence(nn.Module):
    def __init__(self, rnn: nn.RNNBase, last: bool = True) -> None:
        super().__init__()
        self.rnn, self.head, self.last = rnn, nn.Linear(rnn.hidden_size, 1), last

    def forward(self, x: Tensor) -> Tensor:
        out = self.rnn(x)[0]
        return self.head(out[:, -1] if self.last else out.mean(1))


class Transformer(nn.Module):
    def __init__(self, norm_first: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(32, 50)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.head(self.encoder(self.embed(tokens), mask=mask))


class OwnLoss(nn.Module):
    """Returns something with a `.loss`, called with keywords."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Transformer()

    def forward(self, input_ids: Tensor, labels: Tensor) -> Any:
        loss = F.cross_entropy(self.body(input_ids).flatten(0, 1), labels.flatten())
        return type("Output", (), {"loss": loss})()


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 32), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.old = nn.Linear(32, 1), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def images() -> tuple[Tensor, Tensor]:
    return torch.randn(16, 3, 12, 12), torch.randint(10, (16,))


def resnet(blocks: int = 6) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        *(ConvBlock(16) for _ in range(blocks)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(288, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def zero_head() -> nn.Module:
    net = deep(nn.ReLU, 4)
    nn.init.zeros_(net[-1].weight)
    nn.init.zeros_(net[-1].bias)
    return net


def he(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return net


def series(steps: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(16, steps, 4)
    return x, x[:, :, 0].mean(1, keepdim=True)


def tokens() -> dict[str, Tensor]:
    ids = torch.randint(50, (8, 12))
    return {"input_ids": ids, "labels": ids.roll(-1, 1)}


mse, ce = F.mse_loss, F.cross_entropy

HEALTHY: dict[str, Callable[[], Case]] = {
    "linear": lambda: (nn.Linear(32, 1), numbers(), mse),
    "mlp relu": lambda: (deep(nn.ReLU, 4), numbers(), mse),
    "mlp tanh": lambda: (deep(nn.Tanh, 4), numbers(), mse),
    "mlp gelu": lambda: (deep(nn.GELU, 4), numbers(), mse),
    "mlp sigmoid, shallow": lambda: (deep(nn.Sigmoid, 2), numbers(), mse),
    "mlp he, 20 layers": lambda: (he(deep(nn.ReLU, 20, 128)), numbers(64, 128), mse),
    "mlp, batch of one": lambda: (deep(nn.ReLU, 4), numbers(1), mse),
    "dropout": lambda: (
        nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 1)),
        numbers(), mse,
    ),
    "mlp, tiny inputs and norm": lambda: (
        nn.Sequential(nn.LayerNorm(32), deep(nn.ReLU, 3)), numbers(scale=1e-3), mse,
    ),
    "mlp, tiny loss": lambda: (
        deep(nn.ReLU, 4), numbers(), lambda out, y: 1e-8 * mse(out, y),
    ),
    "cnn": lambda: (cnn(), images(), ce),
    "resnet, last norm at zero": lambda: (resnet(), images(), ce),
    "residual": lambda: (
        nn.Sequential(*(Block(32) for _ in range(12)), nn.Linear(32, 1)), numbers(), mse,
    ),
    "residual, closed gates": lambda: (
        nn.Sequential(*(Block(32, 0.0) for _ in range(12)), nn.Linear(32, 1)), numbers(), mse,
    ),
    "zero head": lambda: (zero_head(), numbers(), mse),
    "lora": lambda: (
        nn.Sequential(*(LoRA(32) for _ in range(4)), nn.Linear(32, 1).requires_grad_(False)),
        numbers(), mse,
    ),
    "lstm": lambda: (Sequence(nn.LSTM(4, 16, 2, batch_first=True)), series(32), mse),
    "gru": lambda: (Sequence(nn.GRU(4, 16, batch_first=True), last=False), series(64), mse),
    "rnn, short": lambda: (Sequence(nn.RNN(4, 16, batch_first=True)), series(12), mse),
    "transformer, pre-norm": lambda: (
        Transformer(), (torch.randint(50, (8, 12)), torch.randint(50, (8, 12))),
        lambda out, y: ce(out.flatten(0, 1), y.flatten()),
    ),
    "transformer, post-norm": lambda: (
        Transformer(False), (torch.randint(50, (8, 12)), torch.randint(50, (8, 12))),
        lambda out, y: ce(out.flatten(0, 1), y.flatten()),
    ),
    "own loss": lambda: (OwnLoss(), tokens(), None),
    "autoencoder": lambda: (Autoencoder(), torch.rand(32, 32), mse),
}  # fmt: skip


def nan_batch() -> tuple[Tensor, Tensor]:
    x, y = numbers()
    x[3, 1] = math.nan
    return x, y


def dead() -> nn.Module:
    net = deep(nn.ReLU, 3)
    nn.init.constant_(net[2].bias, -50.0)
    return net


SICK: dict[str, tuple[Callable[[], Case], str]] = {
    "sigmoid, 30 layers": (lambda: (deep(nn.Sigmoid, 30), numbers(), mse), "vanishing"),
    "tiny weights": (lambda: (deep(nn.ReLU, 12, gain=0.1), numbers(), mse), "vanishing"),
    "gain 3, relu": (lambda: (deep(nn.ReLU, 30, gain=3.0), numbers(), mse), "exploding"),
    "gain 3, tanh": (
        lambda: (deep(nn.Tanh, 30, 128, gain=3.0), numbers(32, 128), mse),
        "exploding",
    ),
    "tanh, inputs x100": (lambda: (deep(nn.Tanh, 4), numbers(scale=100.0), mse), "saturated"),
    "rnn over 200 steps": (
        lambda: (Sequence(nn.RNN(4, 16, batch_first=True)), series(200), mse),
        "vanishing",
    ),
    "nan in the batch": (lambda: (deep(nn.ReLU, 3), nan_batch(), mse), "nonfinite"),
    "dead units": (lambda: (dead(), numbers(), mse), "dead_units"),
}
