"""What was trained before and is trained further: little moves, and little should."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.silence.case import Task, Trial, accuracy
from tests.silence.data import batches, digits, flat_digits, lines
from tests.silence.healthy.language import GPT, next_character
from tests.silence.healthy.vision import classify, resnet


def pretrain(net: nn.Module, loss, data: list, lr: float = 3e-3) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr)
    net.train()
    for batch in data:
        optimizer.zero_grad()
        loss(net, *batch).backward()
        optimizer.step()


def body_of_five(steps: int = 80) -> nn.Sequential:
    """Return a net that knows the digits up to 4."""
    x, y = digits()
    net = resnet()
    pretrain(net, classify, batches(x[y < 5], y[y < 5], steps=steps))
    return net


class LoRA(nn.Module):
    """A frozen layer and a correction of rank 4, which starts at zero."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(4, layer.in_features) * layer.in_features**-0.5)
        self.b = nn.Parameter(torch.zeros(layer.out_features, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + F.linear(F.linear(x, self.a), self.b) * 2


def text_backwards(steps: int) -> list[tuple[Tensor, Tensor]]:
    return [(y.flip(1), x.flip(1)) for x, y in lines(steps)]


def lora() -> Trial:
    """A model of text learns to read backwards."""
    net = GPT(2)
    pretrain(net, next_character, lines(80), 5e-3)
    net.requires_grad_(False)
    for block in net.blocks:
        block.attention.qkv = LoRA(block.attention.qkv)
        block.attention.proj = LoRA(block.attention.proj)
        block.mlp[0], block.mlp[2] = LoRA(block.mlp[0]), LoRA(block.mlp[2])
    task = Task(
        net,
        next_character,
        optimizer=lambda t: torch.optim.AdamW(
            [p for p in t.parameters() if p.requires_grad], lr=1e-2
        ),
    )
    return Trial(task, text_backwards(150), lambda: task.first - task.last, 0.15)


def biases_only() -> Trial:
    """BitFit: nothing but biases and norms is trained."""
    net = GPT(2)
    pretrain(net, next_character, lines(80), 5e-3)
    for parameter in net.parameters():
        parameter.requires_grad_(parameter.dim() == 1)
    task = Task(net, next_character, lr=2e-2)
    return Trial(task, text_backwards(150), lambda: task.first - task.last, 0.2)


def all_weights_at_1e_5() -> Trial:
    """A net that knows its digits is fine-tuned so gently that it hardly moves."""
    x, y = digits()
    net = resnet()
    pretrain(net, classify, batches(x, y, steps=150))
    task = Task(net, classify, optimizer=lambda t: torch.optim.AdamW(t.parameters(), lr=1e-5))
    return Trial(task, batches(x, y, steps=150), lambda: accuracy(net, x, y), 0.93)


def all_weights_with_warm_up_and_decay() -> Trial:
    """A new head on a body of half the classes, learning rates by layer."""
    x, y = digits()
    net = body_of_five()
    net[-1][-1] = nn.Linear(16, 10)

    def optimizer(task: Task) -> torch.optim.Optimizer:
        body = [p for n, p in task.net.named_parameters() if "5.2" not in n]
        head = [p for n, p in task.net.named_parameters() if "5.2" in n]
        return torch.optim.AdamW([{"params": body, "lr": 1e-3}, {"params": head, "lr": 1e-2}])

    task = Task(
        net,
        classify,
        optimizer=optimizer,
        schedule=lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, [1e-3, 1e-2], total_steps=151, pct_start=0.1
        ),
    )
    return Trial(task, batches(x, y, steps=150), lambda: accuracy(net, x, y), 0.8)


def probe_of_a_body_nobody_froze() -> Trial:
    """The body gets gradients and belongs to no optimizer: a linear probe by omission."""
    x, y = digits()
    net = resnet()
    pretrain(net, classify, batches(x, y, steps=60))
    net[-1][-1] = nn.Linear(16, 10)
    task = Task(
        net,
        classify,
        optimizer=lambda t: torch.optim.Adam(t.net[-1][-1].parameters(), lr=2e-2),
    )
    return Trial(task, batches(x, y, steps=150), lambda: accuracy(net, x, y), 0.8)


class Probe(Task):
    """A frozen body whose BatchNorm keeps its statistics."""

    def on_train_batch_start(self, batch, batch_idx: int) -> None:
        self.net[:-1].eval()


def frozen_body_in_eval() -> Trial:
    x, y = digits()
    net = resnet()
    pretrain(net, classify, batches(x, y, steps=60))
    net[:-1].requires_grad_(False)
    net[-1][-1] = nn.Linear(16, 10)
    task = Probe(
        net, classify, optimizer=lambda t: torch.optim.Adam(t.net[-1].parameters(), lr=2e-2)
    )
    return Trial(task, batches(x, y, steps=150), lambda: accuracy(net, x, y), 0.8)


def converged_and_resumed() -> Trial:
    """Solved before, goes on with momentum and a rate of 1e-5."""
    x, y = flat_digits()
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
    net.append(nn.Linear(64, 10))
    pretrain(net, classify, batches(x, y, steps=400))
    task = Task(
        net, classify, optimizer=lambda t: torch.optim.SGD(t.parameters(), 1e-5, momentum=0.9)
    )
    return Trial(task, batches(x, y, steps=200), lambda: accuracy(net, x, y), 0.99)


def converged_text_resumed_at_the_end_of_its_schedule() -> Trial:
    """The loss cannot fall much further, and the rate goes to zero."""
    net = GPT(2)
    pretrain(net, next_character, lines(200), 5e-3)
    task = Task(
        net,
        next_character,
        lr=1e-4,
        schedule=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 120),
    )
    return Trial(task, lines(120), lambda: -task.last, -2.4)


def text_goes_on_at_1e_5() -> Trial:
    """A model of text, the loss of which is mostly the entropy of text, is trained gently on."""
    net = GPT(2)
    pretrain(net, next_character, lines(200), 5e-3)
    task = Task(net, next_character, optimizer=lambda t: torch.optim.AdamW(t.parameters(), lr=1e-5))
    return Trial(task, lines(120), lambda: -task.last, -2.4)


def text_goes_on_with_sgd() -> Trial:
    net = GPT(2)
    pretrain(net, next_character, lines(200), 5e-3)
    task = Task(net, next_character, optimizer=lambda t: torch.optim.SGD(t.parameters(), 1e-3))
    return Trial(task, lines(120), lambda: -task.last, -2.4)


def converged_regression_resumed() -> Trial:
    """What is left of the loss is the noise of the data."""
    x = torch.randn(1000, 6)
    y = x[:, :1] - 0.5 * x[:, 1:2].square() + torch.randn(1000, 1)
    net = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1))

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(net(x), y)

    pretrain(net, loss, batches(x, y, steps=600), 1e-2)
    task = Task(net, loss, lr=1e-5)
    return Trial(task, batches(x, y, steps=200), lambda: -task.last, -1.15)


class Adapter(nn.Module):
    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.down, self.up = nn.Linear(width, 4), nn.Linear(4, width)
        nn.init.normal_(self.down.weight, std=1e-3)
        nn.init.normal_(self.up.weight, std=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        return x + self.up(F.gelu(self.down(x)))


def adapters() -> Trial:
    """Bottlenecks that start at next to nothing behind frozen layers, and the norms (Houlsby)."""
    net = GPT(2)
    pretrain(net, next_character, lines(80), 5e-3)
    net.requires_grad_(False)
    for block in net.blocks:
        block.mlp = Adapter(block.mlp, 32)
        block.attention.proj = Adapter(block.attention.proj, 32)
    for module in net.modules():
        if isinstance(module, (nn.LayerNorm, Adapter)):
            for parameter in module.parameters(recurse=isinstance(module, nn.LayerNorm)):
                parameter.requires_grad_(True)
        if isinstance(module, Adapter):
            module.down.requires_grad_(True)
            module.up.requires_grad_(True)
    task = Task(
        net,
        next_character,
        optimizer=lambda t: torch.optim.AdamW(
            [p for p in t.parameters() if p.requires_grad], lr=1e-2
        ),
    )
    return Trial(task, text_backwards(150), lambda: task.first - task.last, 0.15)


class Thaw(Task):
    """Only the head at first; the body from step 60 on."""

    def on_train_batch_start(self, batch, batch_idx: int) -> None:
        self.net[:-1].requires_grad_(batch_idx >= 60)


def thawed_later() -> Trial:
    x, y = digits()
    net = body_of_five()
    net[-1][-1] = nn.Linear(16, 10)
    task = Thaw(net, classify, lr=4e-3)
    return Trial(task, batches(x, y, steps=200), lambda: accuracy(net, x, y), 0.85)


class Preferred(nn.Module):
    """A policy and the model it started from (DPO)."""

    def __init__(self, net: GPT) -> None:
        super().__init__()
        self.policy = net
        self.reference = copy.deepcopy(net).requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        logs = []
        for net in (self.policy, self.reference):
            logs.append(-F.cross_entropy(net(x).transpose(1, 2), y, reduction="none").sum(1))
        return logs[0] - logs[1]


def preferences() -> Trial:
    """Text is preferred to text in reverse."""
    net = GPT(2)
    pretrain(net, next_character, lines(60), 5e-3)

    def loss(net: Preferred, x: Tensor, y: Tensor) -> Tensor:
        good, bad = net(x, y), net(y.flip(1), x.flip(1))
        return -F.logsigmoid(0.1 * (good - bad)).mean()

    task = Task(Preferred(net), loss, lr=1e-4)
    return Trial(task, lines(120, size=8), lambda: 1 - task.last / task.first, 0.5)


CASES = (
    lora, biases_only, all_weights_at_1e_5, all_weights_with_warm_up_and_decay,
    probe_of_a_body_nobody_froze, frozen_body_in_eval, converged_and_resumed,
    converged_text_resumed_at_the_end_of_its_schedule, text_goes_on_at_1e_5, text_goes_on_with_sgd,
    converged_regression_resumed, adapters,
    thawed_later, preferences,
)  # fmt: skip
