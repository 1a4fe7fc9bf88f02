"""How a network begins: initialisation, pretraining, adapters, frozen layers."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo.config import Config
from benchmarks.zoo.nets import NETS, Block, Recurrent
from benchmarks.zoo.tasks import Task, loss_of, task_of


class LoRA(nn.Module):
    """A frozen linear layer with a low-rank change that begins at zero.

    Args:
        base: The layer, whose parameters are taken over and frozen.
        rank: Of the change.
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + F.linear(F.linear(x, self.down), self.up)


def _initialise(weight: Tensor, config: Config, rectified: bool) -> None:
    fan_in = weight[0].numel()
    if config.init == "zero":
        nn.init.zeros_(weight)
    elif config.init == "normal":
        nn.init.normal_(weight, std=config.gain)
    elif config.init == "orthogonal":
        nn.init.orthogonal_(weight, gain=config.gain)
    elif config.init == "good":
        gain = math.sqrt(2) if rectified else 1.0
        nn.init.normal_(weight, std=config.gain * gain / math.sqrt(fan_in))
    elif config.gain != 1.0:  # torch's own
        weight.mul_(config.gain)


@torch.no_grad()
def initialise(net: nn.Module, config: Config) -> None:
    """Set every initial weight by the config."""
    rectified = config.activation in ("relu", "leaky", "gelu", "relu6", "elu", "silu")
    for module in net.modules():
        if isinstance(module, Block) and module.out is not None:
            nn.init.zeros_(module.out.weight)
    for module in net.modules():
        if isinstance(module, Block):
            weight, bias = module.linear.weight, module.linear.bias
            assert isinstance(weight, Tensor)
            assert isinstance(bias, Tensor)
            _initialise(weight, config, rectified)
            if config.init != "torch" or config.bias:
                nn.init.constant_(bias, config.bias)
        elif isinstance(module, nn.RNNBase | nn.RNNCellBase) and config.recurrent:
            for name, parameter in module.named_parameters():
                if name.startswith("weight_hh"):
                    for part in parameter.split(config.width):
                        nn.init.orthogonal_(part, gain=config.recurrent)
        if isinstance(module, nn.LSTM | nn.LSTMCell) and config.forget:
            for name, parameter in module.named_parameters():
                if name.startswith("bias_ih"):
                    parameter[config.width : 2 * config.width].fill_(config.forget)
    head = getattr(net, "head", None)
    if isinstance(head, nn.Linear) and config.arch in ("mlp", "cnn", "autoencoder", "bag"):
        if not (config.arch == "autoencoder" and config.tied):
            # The large gain of a saturating net stays out of its head, or the loss would explode.
            gain = config.gain if rectified or config.init == "normal" else min(config.gain, 1.0)
            _initialise(head.weight, replace(config, gain=gain), False)
        if config.init != "torch":
            nn.init.zeros_(head.bias)
    elif config.gain != 1.0:
        for module in net.modules():
            if isinstance(module, nn.Linear) and not isinstance(net, Recurrent):
                module.weight.mul_(config.gain)


def _turned(task: Task, angle: float) -> Tensor:
    x = task.x.clone()
    flat = x.view(len(x), -1)
    a, b = flat[:, 0].clone(), flat[:, 1].clone()
    flat[:, 0] = math.cos(angle) * a - math.sin(angle) * b
    flat[:, 1] = math.sin(angle) * a + math.cos(angle) * b
    return x


@functools.lru_cache(maxsize=8)
def _pretrained(config: Config) -> dict[str, Tensor]:
    """Train with Adam at 0.005, in a plain loop, what the run begins with."""
    task = task_of(config)
    # What is drawn afterwards must not depend on whether this is remembered.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + 77)
        net = NETS[config.arch](task, config)
        initialise(net, config)
        x = _turned(task, config.shift) if config.shift else task.x
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
        for _ in range(config.pretrain):
            rows = torch.randint(0, len(x), (64,))
            optimizer.zero_grad()
            loss_of(task, config.loss, net(x[rows]), task.y[rows]).backward()
            optimizer.step()
    return {k: v.clone() for k, v in net.state_dict().items()}


def build_net(task: Task, config: Config) -> nn.Module:
    """Return the network as it is when the run begins."""
    torch.manual_seed(config.seed)
    net = NETS[config.arch](task, config)
    initialise(net, config)
    if config.pretrain:
        plain = Config(config.task)
        start = {
            k: getattr(plain, k)
            for k in (
                "optimizer", "lr", "momentum", "weight_decay", "schedule", "warmup", "clip",
                "accumulate", "precision", "batch", "steps", "fault", "ablate", "lora", "frozen",
                "loss_scale",
            )
        }  # fmt: skip
        net.load_state_dict(_pretrained(replace(config, **start)))
    blocks = [m for m in net.modules() if isinstance(m, Block)]
    if config.lora:
        for block in blocks:
            assert isinstance(block.linear, nn.Linear)
            block.linear = LoRA(block.linear, config.lora)
    for block in blocks[: config.frozen]:
        block.linear.requires_grad_(False)
    if config.ablate == "layers":
        freeze_early_half(net)
    return net


def matrices(net: nn.Module) -> list[nn.Parameter]:
    """Return the trainable matrices in order of definition."""
    return [p for p in net.parameters() if p.requires_grad and p.dim() >= 2]


def freeze_early_half(net: nn.Module) -> None:
    """Take gradients from the parameters of the early half of the matrices and their biases."""
    late = matrices(net)[len(matrices(net)) // 2 :]
    for parameter in net.parameters():
        if late and parameter is late[0]:
            return
        parameter.requires_grad_(False)
