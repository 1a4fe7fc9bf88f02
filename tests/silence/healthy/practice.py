"""How people train: accumulation, schedules, precision, optimizers, tricks by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from pytorch_lightning.callbacks import StochasticWeightAveraging
from torch import Tensor, nn

from tests.silence.case import Task, Trial, accuracy
from tests.silence.data import batches, digits, flat_digits, lines
from tests.silence.healthy.language import GPT, next_character
from tests.silence.healthy.tabular import digit_mlp, mlp
from tests.silence.healthy.vision import classify, digit_reader, resnet

Optimizer = torch.optim.Optimizer


def with_optimizer(make: Callable[[list], Optimizer], **kw: object) -> Trial:
    return digit_mlp(classify, optimizer=lambda t: make(list(t.parameters())), **kw)


def accumulated() -> Trial:
    """Eight small batches to a step."""
    x, y = flat_digits()
    net = mlp(64, 64, 10)
    task = Task(net, classify, lr=1e-2)
    return Trial(
        task,
        batches(x, y, steps=124 * 8 - 3, size=4),
        lambda: accuracy(net, x, y),
        0.85,
        {"accumulate_grad_batches": 8},
    )


def bf16() -> Trial:
    trial = digit_reader(resnet(), lr=4e-3)
    trial.trainer = {"precision": "bf16-mixed"}
    return trial


def bf16_true() -> Trial:
    x, y = flat_digits()
    net = mlp(64, 64, 10)

    def score() -> float:
        return float((net.float()(x).argmax(1) == y).float().mean())

    data = batches(x.bfloat16(), y, steps=150)
    return Trial(Task(net, classify), data, score, 0.8, {"precision": "bf16-true"})


def double() -> Trial:
    x, y = flat_digits()
    net = mlp(64, 64, 10)

    def score() -> float:
        return float((net.float()(x).argmax(1) == y).float().mean())

    data = batches(x.double(), y, steps=150)
    return Trial(Task(net, classify), data, score, 0.8, {"precision": "64-true"})


def lbfgs() -> Trial:
    """All data at once, Lightning's closure, up to ten evaluations a step."""
    x, y = flat_digits()
    net = mlp(64, 32, 10, act=nn.Tanh)
    task = Task(
        net, classify, optimizer=lambda t: torch.optim.LBFGS(t.parameters(), 0.3, max_iter=4)
    )
    return Trial(task, [(x[:400], y[:400])] * 120, lambda: accuracy(net, x, y), 0.85)


def clipped_hard() -> Trial:
    trial = digit_reader(resnet(), lr=4e-3)
    trial.trainer = {"gradient_clip_val": 0.05}
    return trial


def clipped_by_value() -> Trial:
    trial = digit_mlp(classify)
    trial.trainer = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": "value"}
    return trial


def tenth_of_a_long_warm_up() -> Trial:
    """The run ends when the warm-up has come to a tenth of the way: 1e-3 of 1e-2."""
    return digit_mlp(
        classify,
        steps=200,
        optimizer=lambda t: torch.optim.AdamW(t.parameters(), 1e-2),
        schedule=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda s: (s + 1) / 2000),
    )


def warm_up_of_language_model() -> Trial:
    task = Task(
        GPT(2),
        next_character,
        lr=1e-2,
        schedule=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda s: (s + 1) / 1500),
    )
    return Trial(task, lines(150), lambda: task.first - task.last, 0.8)


class SAM(Task):
    """Two passes a step: up to where it is worst nearby, and down from there; by hand."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net, classify)
        self.automatic_optimization = False

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        parameters = list(self.net.parameters())
        loss = classify(self.net, *batch)
        slopes = torch.autograd.grad(loss, parameters)
        norm = torch.stack([g.norm() for g in slopes]).norm()
        shifts = [0.05 * g / (norm + 1e-12) for g in slopes]
        with torch.no_grad():
            for parameter, shift in zip(parameters, shifts, strict=True):
                parameter.add_(shift)
        optimizer.zero_grad()
        self.manual_backward(classify(self.net, *batch))
        with torch.no_grad():
            for parameter, shift in zip(parameters, shifts, strict=True):
                parameter.sub_(shift)
        optimizer.step()
        self.losses.append(float(loss.detach()))


def sharpness_aware() -> Trial:
    x, y = digits()
    net = resnet()
    return Trial(SAM(net), batches(x, y, steps=120), lambda: accuracy(net, x, y), 0.85)


class Averaged(Task):
    """Keeps a moving average of the weights, which is what is used."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net, classify, lr=5e-3)
        self.average = copy.deepcopy(net).requires_grad_(False)

    def on_train_batch_end(self, *args: object) -> None:
        for slow, fast in zip(self.average.parameters(), self.net.parameters(), strict=True):
            slow.data.lerp_(fast.data, 0.05)


def moving_average() -> Trial:
    x, y = flat_digits()
    net = mlp(64, 64, 64, 10)
    task = Averaged(net)
    return Trial(task, batches(x, y, steps=150), lambda: accuracy(task.average, x, y), 0.85)


def stochastic_weight_averaging() -> Trial:
    """Six epochs; the last of them at the rate of the averages."""
    x, y = flat_digits()
    net = mlp(64, 64, 10)
    task = Task(
        net, classify, optimizer=lambda t: torch.optim.SGD(t.parameters(), 0.1, momentum=0.9)
    )
    more = {"max_epochs": 6, "callbacks": [StochasticWeightAveraging(swa_lrs=0.05)]}
    return Trial(task, batches(x, y, steps=30, size=50), lambda: accuracy(net, x, y), 0.85, more)


def half_dropped() -> Trial:
    x, y = flat_digits()
    net = nn.Sequential(
        nn.Linear(64, 96), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(96, 96), nn.ReLU(), nn.Dropout(0.5), nn.Linear(96, 10),
    )  # fmt: skip
    task = Task(net, classify)
    return Trial(task, batches(x, y, steps=150), lambda: accuracy(net.eval(), x, y), 0.8)


def single_examples() -> Trial:
    """Batches of one: the loss of a step says nothing."""
    x, y = flat_digits()
    net = mlp(64, 48, 10)
    task = Task(net, classify, optimizer=lambda t: torch.optim.SGD(t.parameters(), 0.02))
    return Trial(task, batches(x, y, steps=400, size=1), lambda: accuracy(net, x, y), 0.7)


def tiny_loss() -> Trial:
    return digit_mlp(lambda net, x, y: 1e-6 * classify(net, x, y))


def huge_loss() -> Trial:
    return digit_mlp(lambda net, x, y: 1e5 * F.cross_entropy(net(x), y, reduction="sum"))


def much_weight_decay() -> Trial:
    return digit_reader(
        resnet(), optimizer=lambda t: torch.optim.AdamW(t.parameters(), 5e-3, weight_decay=1.0)
    )


def sorted_by_class() -> Trial:
    """Two classes at a time, which the last layer hates: the loss swings from batch to batch."""
    x, y = flat_digits()
    net = mlp(64, 64, 10)
    data = []
    for i in range(200):
        kinds = [(2 * (i % 5)), 2 * (i % 5) + 1]
        at = torch.cat([torch.multinomial((y == k).float(), 16) for k in kinds])
        data.append((x[at], y[at]))
    return Trial(Task(net, classify, lr=1e-3), data, lambda: accuracy(net, x, y), 0.7)


def one_cycle_up_to_a_high_rate() -> Trial:
    return digit_reader(
        resnet(),
        optimizer=lambda t: torch.optim.SGD(t.parameters(), 0.01, momentum=0.9),
        schedule=lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.5, total_steps=151),
    )


def step_decay() -> Trial:
    return digit_mlp(
        classify,
        optimizer=lambda t: torch.optim.SGD(t.parameters(), 0.2),
        schedule=lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [60, 110], gamma=0.1),
    )


def adagrad() -> Trial:
    return with_optimizer(lambda p: torch.optim.Adagrad(p, 0.02))


def adadelta() -> Trial:
    return with_optimizer(lambda p: torch.optim.Adadelta(p, 1.0))


def rprop() -> Trial:
    x, y = flat_digits()
    net = mlp(64, 32, 10)
    task = Task(net, classify, optimizer=lambda t: torch.optim.Rprop(t.parameters(), 1e-3))
    return Trial(task, [(x[:600], y[:600])] * 120, lambda: accuracy(net, x, y), 0.85)


def adamax() -> Trial:
    return with_optimizer(lambda p: torch.optim.Adamax(p, 5e-3))


def averaged_sgd() -> Trial:
    return with_optimizer(lambda p: torch.optim.ASGD(p, 0.1))


class Lion(Optimizer):
    """Steps of one size, by the sign of a momentum."""

    def __init__(self, parameters, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                m = state.setdefault("m", torch.zeros_like(p))
                p.sub_(group["lr"] * (0.9 * m + 0.1 * p.grad).sign())
                m.lerp_(p.grad, 0.01)
        return loss


def sign_of_momentum() -> Trial:
    return with_optimizer(lambda p: Lion(p, 1e-3))


class Ensemble(Task):
    """Three nets, three optimizers, one step each a batch, by hand."""

    def __init__(self) -> None:
        super().__init__(nn.ModuleList(mlp(64, 32, 10) for _ in range(3)), classify)
        self.automatic_optimization = False

    def configure_optimizers(self) -> list[Optimizer]:
        return [torch.optim.Adam(net.parameters(), 5e-3) for net in self.net]

    def training_step(self, batch, batch_idx):
        for net, optimizer in zip(self.net, self.optimizers(), strict=True):
            loss = classify(net, *batch)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        self.losses.append(float(loss.detach()))


def ensemble() -> Trial:
    x, y = flat_digits()
    task = Ensemble()
    return Trial(task, batches(x, y, steps=150), lambda: accuracy(task.net[2], x, y), 0.85)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(mlp(64, 64, 64) for _ in range(3))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
        return self.head(x)


def activation_checkpointing() -> Trial:
    return digit_reader(Checkpointed(), flat=True)


def weight_and_spectral_norm() -> Trial:
    net = mlp(64, 64, 64, 10)
    nn.utils.parametrizations.weight_norm(net[0])
    nn.utils.parametrizations.spectral_norm(net[2])
    return digit_reader(net, flat=True, lr=5e-3)


def pruned() -> Trial:
    """Nine in ten weights are masked to zero from the start."""
    net = mlp(64, 128, 128, 10)
    for layer in net[::2]:
        torch.nn.utils.prune.random_unstructured(layer, "weight", 0.9)
    return digit_reader(net, flat=True, lr=5e-3)


def quantised() -> Trial:
    """Weights of four bits in the forward pass, straight through in the backward pass."""

    class Rounded(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            scale = self.weight.detach().abs().max() / 7
            hard = (self.weight / scale).round() * scale
            return F.linear(x, self.weight + (hard - self.weight).detach(), self.bias)

    net = nn.Sequential(Rounded(64, 64), nn.ReLU6(), Rounded(64, 64), nn.ReLU6(), Rounded(64, 10))
    return digit_reader(net, flat=True)


def wrong_batch_now_and_then() -> Trial:
    """One batch in thirty is garbage of ten times the size; clipping bears it."""
    x, y = flat_digits()
    net = mlp(64, 64, 10)
    data = [
        (10 * torch.randn_like(a), b) if i % 30 == 29 else (a, b)
        for i, (a, b) in enumerate(batches(x, y, steps=200))
    ]
    return Trial(
        Task(net, classify, lr=2e-3),
        data,
        lambda: accuracy(net, x, y),
        0.8,
        {"gradient_clip_val": 1.0},
    )


CASES = (
    accumulated, bf16, bf16_true, double, lbfgs, clipped_hard, clipped_by_value,
    tenth_of_a_long_warm_up, warm_up_of_language_model, sharpness_aware, moving_average,
    stochastic_weight_averaging, half_dropped, single_examples, tiny_loss, huge_loss,
    much_weight_decay, sorted_by_class, one_cycle_up_to_a_high_rate, step_decay, adagrad, adadelta,
    rprop, adamax, averaged_sgd, sign_of_momentum, ensemble, activation_checkpointing,
    weight_and_spectral_norm, pruned, quantised, wrong_batch_now_and_then,
)  # fmt: skip
