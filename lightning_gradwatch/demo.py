"""Three small networks that are sick, and the same networks cured: what `gradwatch demo` trains.

Each cure is the first remedy that GradWatch proposes for what it finds in the sick one. They train
on made-up data in seconds, with nothing but torch and Lightning; the examples in the repository do
the same on real data, with more remedies to try.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradwatch.callback import GradWatch
from lightning_gradwatch.lightning_base import lightning
from lightning_gradwatch.report import Report

CLASSES = 10
WIDTH = 32


def mlp(cured: bool) -> nn.Module:
    """Return seven layers with sigmoids between them; cured, with batch normalisation."""
    layers: list[nn.Module] = []
    for _ in range(6):
        layers += [nn.Linear(WIDTH, WIDTH)]
        layers += [nn.BatchNorm1d(WIDTH)] if cured else []
        layers += [nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


class Block(nn.Module):
    """A linear layer and ReLU; with `residual` the input is added."""

    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to vectors of shape (N, WIDTH)."""
        y = torch.relu(self.linear(x))
        return x + y if self.residual else y


def residual(cured: bool) -> nn.Module:
    """Return 16 blocks, one behind the other; cured, each adds its input to its output."""
    blocks = [Block(residual=cured) for _ in range(16)]
    # A sum of many blocks is large, and normalising it once keeps the step short enough.
    return nn.Sequential(*blocks, nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES))


class Reader(nn.Module):
    """A recurrent network over 64 steps of which the first tells the class."""

    def __init__(self, cured: bool) -> None:
        super().__init__()
        self.rnn = nn.RNN(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, CLASSES)
        # An input that is learnt carries a gradient, so that it can be followed through time.
        self.embed = nn.Linear(WIDTH, WIDTH)
        if cured:
            nn.init.orthogonal_(self.rnn.get_parameter("weight_hh_l0"))

    def forward(self, x: Tensor) -> Tensor:
        """Read vectors of shape (N, WIDTH), followed by 63 steps of silence."""
        sequence = torch.zeros(len(x), 64, WIDTH)
        sequence[:, 0] = x
        return self.head(self.rnn(self.embed(sequence))[0][:, -1])  # type: ignore[no-any-return]


NETWORKS: dict[str, Callable[[bool], nn.Module]] = {
    "mlp": mlp,
    "residual": residual,
    "rnn": Reader,
}


def data(samples: int = 2048) -> torch.utils.data.TensorDataset:
    """Return vectors and their classes: which of ten random directions a vector lies along most."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, WIDTH, generator=generator)
    directions = torch.randn(WIDTH, CLASSES, generator=generator)
    return torch.utils.data.TensorDataset(x, (x @ directions).argmax(dim=1))


def train(name: str, cured: bool, folder: Path, epochs: int = 6) -> Report:
    """Train one network and record it.

    Args:
        name: A key of `NETWORKS`.
        cured: Whether with the remedy.
        folder: Log directory; the run goes below it.
        epochs: How long.

    Returns:
        What GradWatch has to say.
    """
    pl = lightning()
    logging.getLogger(pl.__name__).setLevel(logging.ERROR)
    torch.set_num_threads(1)  # so small that threads would only wait for each other
    torch.manual_seed(0)
    network = NETWORKS[name](cured)

    class Model(pl.LightningModule):  # type: ignore[misc, name-defined]  # known at run time only
        def __init__(self) -> None:
            super().__init__()
            self.net = network

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x, y = batch
            loss = nn.functional.cross_entropy(self.net(x), y)
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    watch = GradWatch(log_every_n_steps=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning's on workers: there is nothing to load
        logger = pl.loggers.TensorBoardLogger(str(folder), name="", version=called(name, cured))
        pl.Trainer(
            max_epochs=epochs,
            callbacks=[watch],
            logger=logger,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        ).fit(Model(), torch.utils.data.DataLoader(data(), batch_size=64, shuffle=True))
    return watch.report()


def called(name: str, cured: bool) -> str:
    """Return the name of a run."""
    return f"{name}-{'cured' if cured else 'sick'}"
