"""Nets that stand for functions, fields, graphs and motions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.silence.case import Task, Trial, explained
from tests.silence.data import batches, digits
from tests.silence.healthy.tabular import mlp


class Sine(nn.Module):
    """A layer of SIREN."""

    def __init__(self, i: int, o: int, first: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(i, o)
        bound = 1 / i if first else math.sqrt(6 / i) / 30
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return (30 * self.linear(x)).sin()


def a_picture() -> tuple[Tensor, Tensor]:
    """Return places of a picture of nine digits in [-1, 1]², and how bright they are."""
    x, _ = digits()
    picture = x[:9, 0].view(3, 3, 8, 8).permute(0, 2, 1, 3).reshape(24, 24)
    line = torch.linspace(-1, 1, 24)
    return torch.cartesian_prod(line, line), 2 * picture.reshape(-1, 1) - 1


def siren() -> Trial:
    x, y = a_picture()
    net = nn.Sequential(Sine(2, 48, first=True), Sine(48, 48), Sine(48, 48), nn.Linear(48, 1))
    nn.init.uniform_(net[-1].weight, -0.01, 0.01)
    task = Task(net, lambda net, x, y: F.mse_loss(net(x), y), lr=1e-3)
    return Trial(task, [(x, y)] * 150, lambda: explained(net(x), y), 0.7)


class Waves(nn.Module):
    """Random Fourier features."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("b", torch.randn(2, 32) * 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([(x @ self.b).sin(), (x @ self.b).cos()], 1)


def fourier_features() -> Trial:
    x, y = a_picture()
    net = nn.Sequential(Waves(), mlp(64, 64, 64, 1))
    task = Task(net, lambda net, x, y: F.mse_loss(net(x), y), lr=3e-3)
    return Trial(task, [(x, y)] * 150, lambda: explained(net(x), y), 0.7)


class Spline(nn.Module):
    """A layer of KAN: on every edge a function of its own, made of bumps."""

    def __init__(self, i: int, o: int, bumps: int = 8) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(-2, 2, bumps))
        self.curve = nn.Parameter(torch.randn(o, i, bumps) * 0.1)
        self.base = nn.Linear(i, o)

    def forward(self, x: Tensor) -> Tensor:
        bumps = (-((x[..., None] - self.centres) * 2).square()).exp()
        return self.base(F.silu(x)) + torch.einsum("nib,oib->no", bumps, self.curve)


def kan() -> Trial:
    x = torch.rand(1000, 2) * 2 - 1
    y = ((math.pi * x[:, :1]).sin() + x[:, 1:].square()).exp()
    net = nn.Sequential(Spline(2, 5), Spline(5, 1))
    task = Task(net, lambda net, x, y: F.mse_loss(net(x), y), lr=1e-2)
    return Trial(task, batches(x, y, steps=150, size=64), lambda: explained(net(x), y), 0.9)


def physics_informed() -> Trial:
    """u'' = -sin(x) with fixed ends, by two derivatives of the net."""
    net = mlp(1, 32, 32, 1, act=nn.Tanh)

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        u = net(x)
        (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (ddu,) = torch.autograd.grad(du.sum(), x, create_graph=True)
        ends = net(torch.tensor([[0.0], [math.pi]]))
        return (ddu + x.sin()).square().mean() + 5 * ends.square().mean()

    x = torch.linspace(0, math.pi, 50)[:, None]
    data = [(torch.rand(64, 1) * math.pi,) for _ in range(300)]
    return Trial(Task(net, loss, lr=5e-3), data, lambda: explained(net(x), x.sin()), 0.9)


def gradient_penalty() -> Trial:
    """Classes with a penalty on the slope at the input."""
    x, y = digits()
    net = nn.Sequential(nn.Flatten(), mlp(64, 64, 10, act=nn.Softplus))

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        fit = F.cross_entropy(net(x), y)
        (slope,) = torch.autograd.grad(fit, x, create_graph=True)
        return fit + 10 * slope.square().sum((1, 2, 3)).mean() * len(x)

    def score() -> float:
        return float((net(x).argmax(1) == y).float().mean())

    return Trial(Task(net, loss, lr=5e-3), batches(x, y, steps=200), score, 0.8)


class Energy(nn.Module):
    """A Hamiltonian net: motion is the derivative of an energy."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = mlp(2, 48, 48, 1, act=nn.Tanh)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)
        return torch.stack([slope[:, 1], -slope[:, 0]], 1)


def hamiltonian() -> Trial:
    x = torch.randn(800, 2)
    y = torch.stack([x[:, 1], -x[:, 0].sin()], 1)
    net = Energy()
    task = Task(net, lambda net, x, y: F.mse_loss(net(x), y), lr=5e-3)
    return Trial(task, batches(x, y, steps=200), lambda: explained(net(x), y), 0.9)


class Flow(nn.Module):
    """A neural ODE by Euler: the same two layers, twenty times over."""

    def __init__(self) -> None:
        super().__init__()
        self.field = mlp(3, 32, 2, act=nn.Tanh)
        self.head = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        for t in range(20):
            time = torch.full((len(x), 1), t / 20)
            x = x + self.field(torch.cat([x, time], 1)) / 5
        return self.head(x)[:, 0]


def neural_ode() -> Trial:
    """Tells the inner of two rings from the outer."""
    y = (torch.rand(600) < 0.5).float()
    angle, radius = torch.rand(600) * 2 * math.pi, 0.5 + y + 0.1 * torch.randn(600)
    x = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    net = Flow()
    task = Task(net, lambda net, x, y: F.binary_cross_entropy_with_logits(net(x), y), lr=1e-2)

    def score() -> float:
        return float(((net(x) > 0) == (y > 0)).float().mean())

    return Trial(task, batches(x, y, steps=200), score, 0.9)


class Equilibrium(nn.Module):
    """A deep equilibrium: one layer to its fixed point, thirty times over."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.enter, self.again = nn.Linear(64, width), nn.Linear(width, width)
        self.head = nn.Linear(width, 10)
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.again.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x.flatten(1))
        z = torch.zeros_like(x)
        for _ in range(30):
            z = (self.again(z) + x).tanh()
        return self.head(self.norm(z))


def equilibrium() -> Trial:
    x, y = digits()
    net = Equilibrium()
    task = Task(net, lambda net, x, y: F.cross_entropy(net(x), y), lr=5e-3)

    def score() -> float:
        return float((net(x).argmax(1) == y).float().mean())

    return Trial(task, batches(x, y, steps=150), score, 0.85)


class Graph(nn.Module):
    """Three rounds of messages between neighbours."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.enter = nn.Linear(16, width)
        self.rounds = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(3))
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x = self.enter(x).relu()
        for layer in self.rounds:
            got = edges @ x / edges.sum(1, keepdim=True).clamp_min(1)
            x = x + layer(self.drop(torch.cat([x, got], 1))).relu()
        return self.head(x)


def graph_messages() -> Trial:
    """Communities of a graph from noisy features; one tenth of the labels is known."""
    y = torch.randint(4, (300,))
    same = y[:, None] == y
    edges = torch.rand(300, 300) < torch.where(same, 0.06, 0.004)
    edges = (edges | edges.T).float()
    x = torch.randn(300, 16)
    x[:, :4] += F.one_hot(y, 4)
    known = torch.rand(300) < 0.3
    net = Graph()

    def loss(net: nn.Module, x: Tensor, edges: Tensor) -> Tensor:
        return F.cross_entropy(net(x, edges)[known], y[known])

    def score() -> float:
        return float((net(x, edges).argmax(1) == y)[~known].float().mean())

    return Trial(Task(net, loss, lr=5e-3), [(x, edges)] * 150, score, 0.7)


class Meta(nn.Module):
    """MAML: one step on five examples of a wave, then the loss of others; second derivatives."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(1, 40, 40, 1)

    def forward(self, x: Tensor, y: Tensor, after: Tensor) -> Tensor:
        weights = dict(self.net.named_parameters())
        before = F.mse_loss(torch.func.functional_call(self.net, weights, (x,)), y)
        slopes = torch.autograd.grad(before, list(weights.values()), create_graph=True)
        moved = {n: w - 0.05 * g for (n, w), g in zip(weights.items(), slopes, strict=True)}
        return torch.func.functional_call(self.net, moved, (after,))


def meta_learning() -> Trial:
    def loss(net: Meta, x: Tensor, y: Tensor, x2: Tensor, y2: Tensor) -> Tensor:
        return torch.stack(
            [F.mse_loss(net(*row[:3]), row[3]) for row in zip(x, y, x2, y2, strict=True)]
        ).mean()

    data = []
    for _ in range(120):
        height, phase = 1 + 2 * torch.rand(4, 1, 1), 3.14 * torch.rand(4, 1, 1)
        x = torch.rand(4, 20, 1) * 8 - 4
        y = height * (x + phase).sin()
        data.append((x[:, :8], y[:, :8], x[:, 8:], y[:, 8:]))
    task = Task(Meta(), loss, lr=5e-3)
    return Trial(task, data, lambda: 1 - task.last / task.first, 0.15)


class Operator(nn.Module):
    """A Fourier neural operator: complex weights on the lowest frequencies."""

    def __init__(self, width: int = 16, modes: int = 6) -> None:
        super().__init__()
        self.modes = modes
        self.enter, self.leave = nn.Conv1d(1, width, 1), nn.Conv1d(width, 1, 1)
        self.spectral = nn.ParameterList(
            torch.randn(width, width, modes, dtype=torch.cfloat) / width for _ in range(2)
        )
        self.local = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for weight, local in zip(self.spectral, self.local, strict=True):
            low = torch.fft.rfft(x)[..., : self.modes]
            wide = torch.fft.irfft(torch.einsum("bim,iom->bom", low, weight), x.shape[-1])
            x = F.gelu(wide + local(x))
        return self.leave(x)


def fourier_operator() -> Trial:
    """From a function to what heat makes of it."""
    waves = torch.randn(400, 5, 1)
    place = torch.arange(32) / 32 * 2 * math.pi
    k = torch.arange(1, 6)[:, None]
    basis = (k * place).sin()
    x = (waves * basis).sum(1, keepdim=True)
    y = (waves * (-0.1 * k**2).exp() * basis).sum(1, keepdim=True)
    task = Task(Operator(), lambda net, x, y: F.mse_loss(net(x), y), lr=5e-3)
    return Trial(task, batches(x, y, steps=150), lambda: 1 - task.last / task.first, 0.8)


CASES = (
    siren, fourier_features, kan, physics_informed, gradient_penalty, hamiltonian, neural_ode,
    equilibrium, graph_messages, meta_learning, fourier_operator,
)  # fmt: skip
