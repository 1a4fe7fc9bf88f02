"""Classifiers of images: 8 x 8 digits through the nets that people use for large ones."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.silence.case import Task, Trial, accuracy
from tests.silence.data import batches, digits, flat_digits


def classify(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(net(x), y)


def digit_reader(
    net: nn.Module, steps: int = 150, at_least: float = 0.8, flat: bool = False, **task: object
) -> Trial:
    """Return a trial that has to get so many digits right."""
    x, y = flat_digits() if flat else digits()
    it = Task(net, classify, **task)
    return Trial(it, batches(x, y, steps=steps), lambda: accuracy(net, x[:600], y[:600]), at_least)


def conv(
    i: int, o: int, stride: int = 1, act: type[nn.Module] = nn.ReLU, **kw: int
) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False, **kw), nn.BatchNorm2d(o), act())


def pool_and_tell(width: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


class Residual(nn.Module):
    def __init__(self, i: int, o: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(i, o, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(o)
        self.conv2 = nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(o)
        self.skip = nn.Identity()
        if stride > 1 or i != o:
            self.skip = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.skip(x))


def resnet(zero_last: bool = False) -> nn.Sequential:
    blocks = [Residual(8, 8), Residual(8, 8), Residual(8, 16, 2), Residual(16, 16)]
    if zero_last:
        for block in blocks:
            nn.init.zeros_(block.bn2.weight)
    return nn.Sequential(conv(1, 8), *blocks, pool_and_tell(16))


def resnet_sgd_cosine() -> Trial:
    return digit_reader(
        resnet(zero_last=True),
        optimizer=lambda t: torch.optim.SGD(
            t.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
        ),
        schedule=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 150),
    )


def resnet_adam() -> Trial:
    return digit_reader(resnet(), lr=3e-3)


def resnet_restarts() -> Trial:
    return digit_reader(
        resnet(),
        optimizer=lambda t: torch.optim.SGD(t.parameters(), 0.1, momentum=0.9),
        schedule=lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 40),
    )


class Squeeze(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, 4, 1),
            nn.ReLU(),
            nn.Conv2d(4, width, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Inverted(nn.Module):
    """Expand, filter each channel by itself, weigh the channels, and come back."""

    def __init__(self, width: int, act: type[nn.Module], drop: float = 0.0) -> None:
        super().__init__()
        wide = 4 * width
        self.drop = drop
        self.body = nn.Sequential(
            nn.Conv2d(width, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            act(),
            conv(wide, wide, act=act, groups=wide),
            Squeeze(wide),
            nn.Conv2d(wide, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        if self.training and self.drop:
            keep = (torch.rand(len(x), 1, 1, 1) > self.drop) / (1 - self.drop)
            out = out * keep
        return x + out


def mobilenet_v3() -> Trial:
    net = nn.Sequential(
        conv(1, 8, act=nn.Hardswish),
        *[Inverted(8, nn.Hardswish) for _ in range(3)],
        conv(8, 16, 2, act=nn.Hardswish),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 32),
        nn.Hardswish(),
        nn.Dropout(0.2),
        nn.Linear(32, 10),
    )
    return digit_reader(net, lr=5e-3)


def efficientnet_rmsprop() -> Trial:
    net = nn.Sequential(
        conv(1, 8, act=nn.SiLU), *[Inverted(8, nn.SiLU, 0.2) for _ in range(3)], pool_and_tell(8)
    )
    return digit_reader(
        net,
        steps=200,
        at_least=0.6,
        optimizer=lambda t: torch.optim.RMSprop(t.parameters(), 3e-3, alpha=0.9, momentum=0.5),
    )


class Dense(nn.Module):
    def __init__(self, width: int, layers: int, growth: int = 6) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(width + i * growth),
                nn.ReLU(inplace=True),
                nn.Conv2d(width + i * growth, growth, 3, padding=1, bias=False),
            )
            for i in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x.clone())], 1)
        return x


def densenet() -> Trial:
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        Dense(8, 4),
        nn.Conv2d(32, 16, 1),
        nn.AvgPool2d(2),
        Dense(16, 3),
        nn.BatchNorm2d(34),
        nn.ReLU(),
        pool_and_tell(34),
    )
    return digit_reader(
        net, optimizer=lambda t: torch.optim.SGD(t.parameters(), 0.05, momentum=0.9)
    )


class ViT(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 17, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 4, 64, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.norm(self.encoder(x)[:, 0]))


def vit() -> Trial:
    return digit_reader(ViT(), steps=250, lr=2e-3, at_least=0.6)


class ConvNeXt(nn.Module):
    """Depthwise filters and a layer scale that starts at 1e-6."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.scale = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        out = self.mlp(self.norm(self.filter(x).permute(0, 2, 3, 1)))
        return x + (self.scale * out).permute(0, 3, 1, 2)


def convnext() -> Trial:
    net = nn.Sequential(
        nn.Conv2d(1, 16, 2, 2), *[ConvNeXt(16) for _ in range(4)], nn.Flatten(), nn.Linear(256, 10)
    )
    return digit_reader(net, optimizer=lambda t: torch.optim.AdamW(t.parameters(), lr=4e-3))


class Mixer(nn.Module):
    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across = nn.Sequential(nn.Linear(places, 32), nn.GELU(), nn.Linear(32, places))
        self.along = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.across(self.n1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.along(self.n2(x))


class MixerNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 24, 2, 2)
        self.blocks = nn.Sequential(*[Mixer(16, 24) for _ in range(3)])
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def mixer() -> Trial:
    return digit_reader(MixerNet(), lr=4e-3)


def vgg_without_norm() -> Trial:
    widths = [1, 16, 16, 32, 32]
    layers = []
    for i, o in itertools.pairwise(widths):
        layers += [nn.Conv2d(i, o, 3, padding=1), nn.ReLU(inplace=True)]
    for layer in layers[::2]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    net = nn.Sequential(
        *layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Dropout(),
        nn.Linear(64, 10),
    )  # fmt: skip
    return digit_reader(
        net,
        optimizer=lambda t: torch.optim.SGD(t.parameters(), 0.02, momentum=0.9, weight_decay=5e-4),
    )


def lenet_tanh() -> Trial:
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 3), nn.Tanh(), nn.Flatten(),
        nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 32), nn.Tanh(), nn.Linear(32, 10),
    )  # fmt: skip
    return digit_reader(
        net, steps=200, optimizer=lambda t: torch.optim.SGD(t.parameters(), 0.1, momentum=0.9)
    )


def one_sigmoid_layer_sgd() -> Trial:
    net = nn.Sequential(nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 10))
    return digit_reader(net, flat=True, optimizer=lambda t: torch.optim.SGD(t.parameters(), 0.5))


def three_sigmoid_layers_adam() -> Trial:
    net = nn.Sequential(
        nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 64), nn.Sigmoid(),
        nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 10),
    )  # fmt: skip
    return digit_reader(net, flat=True, steps=250, at_least=0.7, lr=1e-2)


def logistic_regression() -> Trial:
    return digit_reader(
        nn.Linear(64, 10), flat=True, optimizer=lambda t: torch.optim.SGD(t.parameters(), 0.1)
    )


class Fixup(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.kaiming_normal_(self.a.weight, nonlinearity="relu")
        nn.init.zeros_(self.b.weight)
        nn.init.zeros_(self.b.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(F.relu(self.a(F.relu(x))))


def deep_residual_without_norm() -> Trial:
    net = nn.Sequential(
        nn.Linear(64, 48), *[Fixup(48) for _ in range(12)], nn.ReLU(), nn.Linear(48, 10)
    )
    nn.init.zeros_(net[-1].weight)
    return digit_reader(
        net, flat=True, optimizer=lambda t: torch.optim.SGD(t.parameters(), 0.05, momentum=0.9)
    )


def fifteen_layers_selu() -> Trial:
    layers = []
    for _ in range(15):
        layers += [nn.Linear(64, 64), nn.SELU()]
    net = nn.Sequential(*layers, nn.Linear(64, 10))
    for layer in net[::2]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        nn.init.zeros_(layer.bias)
    return digit_reader(
        net, flat=True, optimizer=lambda t: torch.optim.SGD(t.parameters(), 0.01, momentum=0.9)
    )


class Sign(nn.Module):
    """Weights of one bit, trained straight through."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(o, i) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        hard = self.weight.sign() * self.weight.abs().mean()
        return F.linear(x, self.weight + (hard - self.weight).detach())


def binary_weights() -> Trial:
    net = nn.Sequential(
        Sign(64, 64), nn.BatchNorm1d(64), nn.Hardtanh(),
        Sign(64, 64), nn.BatchNorm1d(64), nn.Hardtanh(), nn.Linear(64, 10),
    )  # fmt: skip
    return digit_reader(net, flat=True)


def highway_with_closed_gates() -> Trial:
    return digit_reader(
        nn.Sequential(nn.Linear(64, 48), *[Highway(48) for _ in range(10)], nn.Linear(48, 10)),
        flat=True,
    )


class Highway(nn.Module):
    """Gates biased to carry, as its paper recommends."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.transform, self.gate = nn.Linear(width, width), nn.Linear(width, width)
        self.act, self.open = nn.Tanh(), nn.Sigmoid()
        nn.init.constant_(self.gate.bias, -3.0)

    def forward(self, x: Tensor) -> Tensor:
        opened = self.open(self.gate(x))
        return x + opened * (self.act(self.transform(x)) - x)


CASES = (
    resnet_sgd_cosine, resnet_adam, resnet_restarts, mobilenet_v3, efficientnet_rmsprop, densenet,
    vit, convnext, mixer, vgg_without_norm, lenet_tanh, one_sigmoid_layer_sgd,
    three_sigmoid_layers_adam, logistic_regression, deep_residual_without_norm, fifteen_layers_selu,
    binary_weights, highway_with_closed_gates,
)  # fmt: skip
