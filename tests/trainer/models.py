"""Small LightningModules, and a way to fit them that leaves nothing behind."""

from __future__ import annotations

import importlib
import itertools
import math
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

NAMESPACES = ("pytorch_lightning", "lightning.pytorch")


def lightning(name: str = "pytorch_lightning") -> Any:
    return importlib.import_module(name)


def mlp(*sizes: int, act: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), act()]
    return nn.Sequential(*layers[:-1])


def data(n: int = 40, width: int = 8, batch_size: int = 8) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, width, generator=generator)
    y = x.sum(1, keepdim=True).sin()
    return DataLoader(TensorDataset(x, y), batch_size=batch_size)


def regression(
    net: nn.Module | None = None, optimizer: Any = None, name: str = "pytorch_lightning"
) -> Any:
    """Return a LightningModule that also keeps the float64 norms of what its optimizer gets."""
    base = lightning(name).LightningModule

    class Regression(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.net = net if net is not None else mlp(8, 16, 16, 1)
            self.truth: list[dict[str, float]] = []

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            x, y = batch
            loss = (self.net(x).float() - y).square().mean()
            self.log("loss", loss)
            return loss

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            self.truth.append(float64_norms(self))

        def configure_optimizers(self) -> Any:
            if optimizer is not None:
                return optimizer(self)
            return torch.optim.SGD(self.parameters(), lr=0.05)

    return Regression()


def float64_norms(module: nn.Module) -> dict[str, float]:
    norms = {}
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            grad = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
            wide = grad.to(torch.complex128 if grad.is_complex() else torch.float64)
            norms[name] = math.sqrt(float(wide.abs().square().sum()))
    return norms


def fit(
    model: Any, *callbacks: Any, loader: Any = None, name: str = "pytorch_lightning", **trainer: Any
) -> Any:
    fit_arguments = {k: trainer.pop(k) for k in ("ckpt_path",) if k in trainer}
    defaults: dict[str, Any] = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    it = lightning(name).Trainer(**(defaults | {"callbacks": list(callbacks)} | trainer))
    it.fit(model, loader if loader is not None else data(), **fit_arguments)
    return it


def scaler_plugin(scale: float = 1024.0) -> Any:
    """Return a precision plugin with a real gradient scaler on the CPU."""
    try:
        from pytorch_lightning.plugins.precision import MixedPrecision
    except ImportError:  # its name before 2.1
        from pytorch_lightning.plugins.precision import MixedPrecisionPlugin as MixedPrecision

    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))
