"""What is measured on the whole data set, in float64, on a copy of the network."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.zoo.config import Config
from benchmarks.zoo.nets import Attention, Block, Recurrent
from benchmarks.zoo.tasks import Task, energy_distance, loss_of
from benchmarks.zoo.weights import matrices

#: Activations that can be dead, and those that can saturate with their largest derivative.
RECTIFIED = ("relu", "relu6")
#: Convolutions in float64 are slow, and no measure of theirs needs it.
WIDTHS = {"cnn": torch.float32}
BOUNDED = {"tanh": 1.0, "sigmoid": 0.25}


class _Recorder(nn.Module):
    """Keeps what an activation returned."""

    def __init__(self, act: object, kind: str) -> None:
        super().__init__()
        self.act, self.kind = act, kind
        self.output: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.output = self.act(x)  # type: ignore[operator]
        return self.output


@dataclass(frozen=True)
class Look:
    """One look at the network.

    Attributes:
        step: Optimizer steps made before it.
        loss: On the whole data set, over that of the best constant predictor.
        elasticity: |w| |dL/dw| / L_const of each matrix.
        dead: For each rectified layer, which units are zero for all samples.
        saturated: Largest share of saturated (unit, sample) pairs of a bounded activation; NaN
            where there is none.
        profile: dL/dx early in time over late; NaN for anything but recurrent nets.
        finite: All parameters are.
    """

    step: int
    loss: float
    elasticity: tuple[float, ...]
    dead: tuple[np.ndarray, ...]
    saturated: float
    profile: float
    finite: bool


def look(
    net: nn.Module, task: Task, config: Config, step: int, constant: float, brief: bool = False
) -> Look:
    """Look at a copy of the network; nothing of the run is touched, not even its random state.

    Args:
        net: The network.
        task: What it learns.
        config: How.
        step: Optimizer steps made.
        constant: Loss of the best constant predictor.
        brief: The loss will do.
    """
    finite = all(bool(torch.isfinite(p).all()) for p in net.parameters())
    if not finite:
        return Look(step, math.nan, (), (), math.nan, math.nan, False)
    copied, recorders = _with_recorders(net, config)
    wide = WIDTHS.get(config.arch, torch.float64)
    copied.to(wide)
    x = task.x.to(wide) if task.x.is_floating_point() else task.x
    if task.kind == "gan":
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(len(task.x), 4, generator=generator).to(wide)
    timed = config.arch == "rnn"
    if timed:
        x = x.clone().requires_grad_()
    with torch.set_grad_enabled(not brief):
        output = copied(x)
        if task.kind == "gan":
            loss = energy_distance(output, task.x.to(wide))
        else:
            loss = loss_of(task, config.loss, output, task.y)
        if brief:
            return Look(step, float(loss) / constant, (), (), math.nan, math.nan, True)
        wanted = matrices(copied)
        grads = torch.autograd.grad(loss, wanted + ([x] if timed else []), allow_unused=True)
    elasticity = tuple(
        float(w.norm() * g.norm()) / constant if g is not None else 0.0
        for w, g in zip(wanted, grads, strict=False)
    )
    profile = _profile(grads[-1]) if timed else math.nan
    dead, saturated = _activations(copied, recorders, config)
    return Look(step, float(loss) / constant, elasticity, dead, saturated, profile, True)


def _with_recorders(net: nn.Module, config: Config) -> tuple[nn.Module, list[_Recorder]]:
    copied = copy.deepcopy(net)
    copied.requires_grad_(True)
    for mine, theirs in zip(copied.parameters(), net.parameters(), strict=True):
        mine.requires_grad_(theirs.requires_grad)
    recorders = []
    for module in copied.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = None
        if isinstance(module, Recurrent):
            module.keep = True
        if isinstance(module, Block | Attention):
            recorder = _Recorder(module.act, config.activation)
            module.act = recorder
            recorders.append(recorder)
    return copied, recorders


def _profile(grad: Tensor) -> float:
    """Gradient at the first tenth of the time steps over that at the last."""
    each = grad.transpose(0, 1).flatten(1).norm(dim=1)
    tenth = max(1, len(each) // 10)
    late = float(each[-tenth:].mean())
    return float(each[:tenth].mean()) / late if late > 0 else math.nan


def _activations(
    net: nn.Module, recorders: list[_Recorder], config: Config
) -> tuple[tuple[np.ndarray, ...], float]:
    dead: list[np.ndarray] = []
    shares: list[float] = []
    outputs = [(r.kind, r.output) for r in recorders]
    for module in net.modules():
        if isinstance(module, Recurrent) and config.cell in ("rnn", "rnn_relu"):
            outputs.append(("tanh" if config.cell == "rnn" else "relu", module.states))
    for kind, output in outputs:
        if output is None:
            continue
        output = output.detach()
        if kind in RECTIFIED:
            rows = output.transpose(1, -1) if output.dim() == 4 else output
            dead.append((rows.flatten(0, -2) == 0).all(0).numpy())
        elif kind in BOUNDED:
            slope = 1 - output.square() if kind == "tanh" else output * (1 - output)
            shares.append(float((slope < 0.05 * BOUNDED[kind]).double().mean()))
    return tuple(dead), max(shares, default=math.nan)
