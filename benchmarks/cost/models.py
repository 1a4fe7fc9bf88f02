"""Five models whose steps are timed, each with data that are the same in every round.

They learn for real (a fixed teacher is to be matched), since gradients of a model that does not
learn set off detectors that would be silent otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: Batches that a model cycles through.
BATCHES = 8


class Model(nn.Module):
    """A network with its data: called without arguments it returns the loss of the next batch."""

    net: nn.Module
    batches: list[tuple[Tensor, Tensor]]
    turn = 0

    def forward(self) -> Tensor:
        """Loss of the next batch."""
        inputs, targets = self.batches[self.turn % len(self.batches)]
        self.turn += 1
        return self.loss(self.net(inputs), targets)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean square error."""
        return nn.functional.mse_loss(outputs, targets)


def _for_relu(layers: Sequence[nn.Module]) -> None:
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def _teach(batch: int, width: int, out: int) -> list[tuple[Tensor, Tensor]]:
    teacher = torch.randn(width, out) / width**0.5
    inputs = [torch.randn(batch, width) for _ in range(BATCHES)]
    return [(x, x @ teacher) for x in inputs]


class Mlp(Model):
    """Twenty layers of 256, batches of 64: 40 parameters, 1.3 million numbers."""

    def __init__(self) -> None:
        super().__init__()
        layers = [m for _ in range(20) for m in (nn.Linear(256, 256), nn.ReLU())][:-1]
        self.net = nn.Sequential(*layers)
        _for_relu(layers)
        self.batches = _teach(64, 256, 256)


class Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.relu = nn.ReLU()
        self.around = nn.Sequential()
        if stride != 1 or inside != outside:
            self.around = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Output of the block."""
        y = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.relu(self.bn2(self.conv2(y)) + self.around(x))
        return out


class ResNet18(Model):
    """ResNet-18 for images of 32x32, batches of 16: 62 parameters, 11 million numbers."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inside = 64
        for i, width in enumerate((64, 128, 256, 512)):
            for j in range(2):
                blocks.append(Block(inside, width, 2 if i and not j else 1))
                inside = width
        self.net = nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), *blocks,
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10),
        )  # fmt: skip
        labels = [torch.randint(10, (16,)) for _ in range(BATCHES)]
        shades = torch.randn(10, 3, 1, 1)
        self.batches = [(torch.randn(16, 3, 32, 32) + shades[y], y) for y in labels]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy."""
        return nn.functional.cross_entropy(outputs, targets)


class Transformer(Model):
    """Six layers of width 384, batches of 8x128 tokens: 76 parameters, 11 million numbers."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(384, 6, 1536, 0.0, batch_first=True, norm_first=True)
        encoder = nn.TransformerEncoder(
            layer, 6, norm=nn.LayerNorm(384), enable_nested_tensor=False
        )
        self.net = nn.Sequential(encoder, nn.Linear(384, 512))
        words = torch.randn(512, 384)
        tokens = [torch.randint(512, (8, 128)) for _ in range(BATCHES)]
        self.batches = [(words[t], t) for t in tokens]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of every token."""
        return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


class Parts(nn.Module):
    """Layers side by side; what they say is averaged."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(32, 16) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        """Mean of what the layers say."""
        return torch.stack([part(x) for part in self.parts]).mean(0)


class Many(Model):
    """520 small layers: 1040 parameters, where the number of tensors is the cost.

    Args:
        layers: How many; each has two parameters.
    """

    def __init__(self, layers: int = 520) -> None:
        super().__init__()
        self.net = Parts(layers)
        self.batches = _teach(32, 32, 16)


class Big(Model):
    """Twelve layers of 2048, batches of 32: 24 parameters, 50 million numbers."""

    def __init__(self) -> None:
        super().__init__()
        layers = [m for _ in range(12) for m in (nn.Linear(2048, 2048), nn.ReLU())][:-1]
        self.net = nn.Sequential(*layers)
        _for_relu(layers)
        self.batches = _teach(32, 2048, 2048)


@dataclass(frozen=True)
class Spec:
    """How a model is measured.

    Attributes:
        title: Its name in tables.
        make: Returns the model.
        lr: AdamW's learning rate, one that it learns with.
        turn: Steps in a row. Where what a model touches fits the cache, a lone step between those
            of others would find it cold: the first of a turn is left out.
    """

    title: str
    make: Callable[[], Model]
    lr: float = 1e-4
    turn: int = 1


MODELS: dict[str, Spec] = {
    "mlp": Spec("20x256 MLP", Mlp, turn=5),
    "many": Spec("1040 small parameters", Many, lr=1e-3, turn=5),
    "resnet": Spec("ResNet-18, 32x32", ResNet18, lr=1e-3),
    "transformer": Spec("6x384 transformer", Transformer, lr=3e-4),
    "big": Spec("12x2048² (50M)", Big, lr=1e-5),
}


def build(name: str) -> Model:
    """Return a model with the weights and data that it has every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[name].make()
