"""What the rules of the field look at, read by hooks of its own."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from benchmarks.zoo.trace import RawActivation, RawStep, RawWeight

#: Activation modules whose inputs and outputs are read.
KINDS = (
    nn.ReLU, nn.LeakyReLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.ReLU6, nn.ELU, nn.SiLU,
)  # fmt: skip


class RawMonitor(pl.Callback):
    """Keeps the first ten steps and every fifth after that."""

    def __init__(self) -> None:
        self.steps: list[RawStep] = []
        self._seen: list[RawActivation] = []
        self._loss = math.nan
        self._count, self._optimizers = 0, 1
        self._before: dict[str, Tensor] = {}
        self._pending: tuple[Any, ...] | None = None
        self._handles: list[Any] = []

    @property
    def _due(self) -> bool:
        step = self._count // self._optimizers
        return step < 10 or step % 5 == 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hook every activation module."""
        self._optimizers = len(trainer.optimizers)
        for name, module in pl_module.named_modules():
            if isinstance(module, KINDS):
                self._handles.append(module.register_forward_hook(self._hook(name)))

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if self._due:
                with torch.no_grad():
                    self._seen.append(_activation(name, module, args[0].float(), output.float()))

        return hook

    def on_train_batch_start(self, *_: Any) -> None:
        """Forget the activations of the batch before."""
        self._seen = []

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Keep the loss, without the division by accumulation and without AMP's scale."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scale = float(scaler.get_scale()) if scaler is not None else 1.0
        automatic = pl_module.automatic_optimization
        factor = trainer.accumulate_grad_batches if automatic else 1
        self._loss = float(loss.detach()) * factor / scale

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Read gradients; the weights are kept until the step has been made."""
        self._finish(pl_module)
        if self._due:
            mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
            named = [
                (n, p) for n, p in pl_module.named_parameters() if id(p) in mine or p.requires_grad
            ]
            self._before = {n: p.detach().clone() for n, p in named}
            grads = {n: p.grad.detach().clone() if p.grad is not None else None for n, p in named}
            accuracy = float(getattr(pl_module, "accuracy", math.nan))
            step = self._count // self._optimizers
            self._pending = (step, self._loss, accuracy, grads, tuple(self._seen))
        self._count += 1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """The step was made."""
        self._finish(pl_module)

    def on_train_end(self, *_: Any) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _finish(self, pl_module: pl.LightningModule) -> None:
        if self._pending is None:
            return
        step, loss, accuracy, grads, activations = self._pending
        self._pending = None
        now = dict(pl_module.named_parameters())
        weights = tuple(
            _weight(name, grad, self._before[name], now[name].detach())
            for name, grad in grads.items()
        )
        self.steps.append(RawStep(step, loss, accuracy, weights, activations))


def _weight(name: str, grad: Tensor | None, before: Tensor, after: Tensor) -> RawWeight:
    size = float(before.abs().mean()) if before.numel() else math.nan
    moved = float((after - before).abs().mean()) if before.numel() else math.nan
    ratio = moved / size if size > 0 else math.nan
    if grad is None:
        return RawWeight(name, before.dim() >= 2, math.nan, math.nan, math.nan, True, ratio)
    grad = (grad.to_dense() if grad.is_sparse else grad).double()
    return RawWeight(
        name,
        before.dim() >= 2,
        float(grad.norm()),
        float(grad.abs().mean()),
        float((grad == 0).double().mean()),
        bool(torch.isfinite(grad).all()),
        ratio,
    )


def _activation(name: str, module: nn.Module, x: Tensor, y: Tensor) -> RawActivation:
    off = y <= 0
    rows = off.transpose(1, -1) if off.dim() == 4 else off
    return RawActivation(
        name,
        type(module).__name__,
        float(off.float().mean()),
        float(rows.flatten(0, -2).all(0).float().mean()),
        float(x.min()),
        float(x.max()),
        float((x.abs() > 5).float().mean()),
        bool(torch.isfinite(y).all()),
    )
