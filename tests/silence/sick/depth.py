"""Nets whose signal dies or blows up on its way through the layers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from tests.silence.case import Task, Trial, accuracy
from tests.silence.data import batches, cancer
from tests.silence.healthy.vision import classify, digit_reader
from tests.silence.sick.illness import NORMALISE, sgd, sick


def mlp(
    widths: Sequence[int], act: Callable[[], nn.Module] = nn.ReLU, normalise: bool = False
) -> nn.Sequential:
    """Return a plain net; with `normalise`, BatchNorm after each Linear but the last."""
    net = nn.Sequential()
    for i, o in itertools.pairwise(widths[:-1]):
        net.append(nn.Linear(i, o))
        if normalise:
            net.append(nn.BatchNorm1d(o))
        net.append(act())
    return net.append(nn.Linear(widths[-2], widths[-1]))


def start(net: nn.Module, init: Callable[[Tensor], Tensor]) -> nn.Module:
    """Initialise all matrices so, and all biases with zero."""
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            init(module.weight)
            nn.init.zeros_(module.bias)
    return net


def he(weight: Tensor) -> Tensor:
    return nn.init.kaiming_normal_(weight, nonlinearity="relu")


def tiny(weight: Tensor) -> Tensor:
    return nn.init.normal_(weight, 0, 0.01)


@sick(
    code="vanishing",
    layers=("net.0", "net.2", "net.4"),
    spared=("net.16",),
    summary=r"dies on its way back: .*net\.0 receives",
    cause=r"A sigmoid's slope is at most 1/4",
    remedy=NORMALISE,
    change={"normalise": True},
)
def deep_sigmoid_mlp(normalise: bool = False) -> Trial:
    """The classic."""
    net = mlp([64, *[48] * 8, 10], nn.Sigmoid, normalise)
    return digit_reader(net, 80, 0.7, flat=True, lr=5e-3)


@sick(
    code="vanishing",
    layers=("net.0", "net.2", "net.4"),
    summary=r"net\.0 receives",
    cause=r"initial weights are too small \(std × √fan_in = 0\.0",
    remedy=NORMALISE,
    change={"normalise": True},
)
def deep_tanh_mlp_with_tiny_weights(normalise: bool = False) -> Trial:
    """Weights from a normal distribution of 0.01, as old code has it."""
    net = start(mlp([64, *[48] * 7, 10], nn.Tanh, normalise), tiny)
    return digit_reader(net, 120, 0.7, flat=True, lr=3e-3)


def plain_cnn(layers: int, normalise: bool, std: float) -> nn.Sequential:
    net = nn.Sequential()
    for i in range(layers):
        net.append(nn.Conv2d(12 if i else 1, 12, 3, padding=1))
        nn.init.normal_(net[-1].weight, 0, std)
        if normalise:
            net.append(nn.BatchNorm2d(12))
        net.append(nn.ReLU())
    return net.append(nn.Flatten()).append(nn.Linear(12 * 64, 10))


@sick(
    code="vanishing",
    layers=("net.0", "net.2", "net.4"),
    summary=r"net\.0 receives",
    cause=r"initial weights are too small",
    remedy=NORMALISE,
    change={"normalise": True},
)
def deep_cnn_with_tiny_weights(normalise: bool = False) -> Trial:
    """Plain convolutions, no normalisation, DCGAN's initial weights."""
    return digit_reader(plain_cnn(8, normalise, 0.02), 60, lr=2e-3)


@sick(
    code="exploding",
    layers=("net.0",),
    summary=r"explodes on its way forward, .* at step 0 what net\.17 puts out",
    cause=r"initial weights are too large \(std × √fan_in = 10; about 1 is usual\)",
    remedy=r"Smaller initial weights: nn\.init\.kaiming_normal_\(layer\.weight, "
    r"nonlinearity='relu'\), or .*",
    change={"kaiming": True},
    also=("nonfinite", "dead_units"),
)
def deep_cnn_with_huge_weights(kaiming: bool = False) -> Trial:
    net = plain_cnn(8, False, 1.0)
    if kaiming:
        start(net, he)
    return digit_reader(net, 60, 0.7, optimizer=sgd(0.02, 0.9))


DEFAULT_WEIGHTS = {
    "code": "vanishing",
    "layers": ("net.0", "net.2"),
    "summary": r"dies on its way back: .*so that net\.0 receives",
    "cause": r"Half of each signal is cut off by ReLU, and initial weights with std × √fan_in = "
    r"0\.58 do not make up for it",
    "remedy": NORMALISE,
    "change": {"normalise": True},
}


@sick(**DEFAULT_WEIGHTS)
def relu_mlp_of_twenty_layers(normalise: bool = False) -> Trial:
    """With the weights that PyTorch gives by default."""
    return digit_reader(mlp([64, *[32] * 20, 10], nn.ReLU, normalise), 110, 0.5, flat=True)


@sick(
    **DEFAULT_WEIGHTS,
    also=("dead_units",),
)
def relu_mlp_of_sixteen_layers(normalise: bool = False) -> Trial:
    net = mlp([64, *[32] * 16, 10], nn.ReLU, normalise)
    return digit_reader(net, 110, 0.5, flat=True, lr=5e-3)


@sick(
    code="dead_units",
    layers=("net.0", "net.2"),
    spared=("net.4",),
    summary=r"All of the units of net\.1 and net\.3 are zero for every input",
    cause=r"The weights began at zero",
    remedy=r"Start from weights that are not zero: nn\.init\.kaiming_normal_\(layer\.weight, "
    r"nonlinearity='relu'\)\.",
    change={"kaiming": True},
    also=("vanishing",),
)
def zero_initialised_mlp(kaiming: bool = False) -> Trial:
    net = mlp([64, 64, 64, 10])
    return digit_reader(start(net, he if kaiming else nn.init.zeros_), 70, 0.7, flat=True)


@sick(
    code="saturated",
    layers=("net.0",),
    summary=r"net\.1.* \(Tanh\) lie on",
    cause=r"The inputs are not standardised: their root mean square is \d",
    remedy=r"Standardise the inputs: x = \(x - x\.mean\(0\)\) / x\.std\(0\)\.",
    change={"standardise": True},
    also=("vanishing",),
)
def tanh_on_unscaled_inputs(standardise: bool = False) -> Trial:
    """Tumours described by lengths and areas of up to 4000."""
    x, y = cancer(standardised=standardise)
    net = nn.Sequential(
        nn.Linear(30, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2)
    )
    task = Task(net, classify, sgd(0.1))
    return Trial(task, batches(x, y, steps=70), lambda: accuracy(net, x, y) - 0.63, 0.25)


@sick(
    code="exploding",
    layers=("net.0", "net.2", "net.4"),
    spared=("net.12",),
    summary=r"explodes on its way back: at step 1 a change of 1 % in the early weights "
    r"\(net\.0 first\)",
    cause=r"The initial weights are too large \(std × √fan_in = 11; about 1 is usual\)",
    remedy=r"Smaller initial weights: .* or nn\.init\.xavier_normal_\(layer\.weight\) for tanh\.",
    change={"init": nn.init.xavier_normal_},
    also=("saturated",),
)
def tanh_with_normal_weights(init: Callable[[Tensor], Tensor] = nn.init.normal_) -> Trial:
    """Weights from torch.randn, as first attempts from scratch have it."""
    net = start(mlp([64, *[128] * 6, 10], nn.Tanh), init)
    return digit_reader(net, 70, 0.7, flat=True, optimizer=sgd(0.05))


CASES = (
    deep_sigmoid_mlp,
    deep_tanh_mlp_with_tiny_weights,
    deep_cnn_with_tiny_weights,
    deep_cnn_with_huge_weights,
    relu_mlp_of_twenty_layers,
    relu_mlp_of_sixteen_layers,
    zero_initialised_mlp,
    tanh_on_unscaled_inputs,
    tanh_with_normal_weights,
)
