"""What the scenarios train: a network with awkward sizes, its data, and one process's own truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gradwatch import GradWatch

STEPS = 6
RATE = 0.1


def network(hidden: int = 8) -> nn.Sequential:
    """Seven rows do not divide by two, and one row leaves the second process an empty shard."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, hidden), nn.Tanh(), nn.Linear(hidden, 7), nn.LayerNorm(7), nn.Linear(7, 1)
    ).double()  # so that norms differ by what is read wrongly, not by the order of summation


def batches(size: int = 4, steps: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    x = torch.randn(size * steps, 8, generator=torch.Generator().manual_seed(1)).double()
    y = x.sum(1, keepdim=True)
    return list(zip(x.split(size), y.split(size), strict=True))


def loader(size: int = 4, steps: int = STEPS) -> DataLoader[Any]:
    parts = batches(size, steps)
    data = TensorDataset(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))
    return DataLoader(data, batch_size=size)


def mean_square(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    loss: Tensor = (net(batch[0]) - batch[1]).square().mean()
    return loss


def alone(
    given: list[tuple[Tensor, Tensor]], net: nn.Module | None = None, clip: float | None = None
) -> dict[str, list[Any]]:
    """Train in one process by hand; return norms of parameters, of all, and after clipping."""
    net = net or network()
    sgd = torch.optim.SGD(net.parameters(), RATE)
    story: dict[str, list[Any]] = {"norms": [], "global": [], "clipped": []}
    for batch in given:
        sgd.zero_grad()
        mean_square(net, batch).backward()
        norms = [float(p.grad.double().norm()) for p in net.parameters() if p.grad is not None]
        story["norms"].append(norms)
        story["global"].append(math.hypot(*norms))
        story["clipped"].append(min(math.hypot(*norms), clip or math.inf))
        if clip:
            nn.utils.clip_grad_norm_(net.parameters(), clip)
        sgd.step()
    story["weights"] = [p.detach().tolist() for p in net.parameters()]
    return story


class Model(pl.LightningModule):
    """Trains a network, which a function may make or change once the strategy is there."""

    def __init__(self, configure: Callable[[Any], nn.Module] | None = None) -> None:
        super().__init__()
        self.configure = configure
        if configure is None:
            self.net: nn.Module = network()

    def configure_model(self) -> None:
        if self.configure is not None:
            self.net = self.configure(self)
            self.configure = None

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return mean_square(self.net, batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        mean_square(self.net, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), RATE)


def fit(
    model: Any, watch: GradWatch | None, data: Any, validated: bool = False, **arguments: Any
) -> pl.Trainer:
    callbacks = [*arguments.pop("callbacks", ()), *([watch] if watch else [])]
    quiet = {"accelerator": "cpu", "max_epochs": 1, "enable_checkpointing": False,
             "enable_progress_bar": False, "enable_model_summary": False}  # fmt: skip
    trainer = pl.Trainer(**({"logger": False} | quiet | arguments), callbacks=callbacks)
    trainer.fit(model, data, data if validated else None)
    return trainer


def told(watch: Any) -> dict[str, Any]:
    """What a watcher saw, in numbers that JSON keeps bit for bit."""
    history = watch.history
    return {
        "parameters": list(history.parameters),
        "steps": history.steps.tolist(),
        "norms": history.grad_norm.tolist(),
        "has": history.has_grad.tolist(),
        "global": history.global_norm.tolist(),
        "clipped": history.clipped_norm.tolist(),
        "loss": history.loss.tolist(),
        "findings": [f.code for f in watch.findings],
        "flow": [flow.modules.out_grad_norm.tolist() for _, flow in history.flow],
        "actions": [(r.action, r.step, r.before, r.after) for r in watch.actions_taken],
    }


def weights(module: nn.Module) -> list[Any]:
    return [p.detach().tolist() for p in module.parameters()]
