"""The LightningModules that every example builds on: what to learn by, and with which optimizer.

`Classifier` and `Regressor` hold loss and metric; a subclass only has to say `forward`. The
optimizers each come with a learning rate that suits them, so that `--optimizer adam` alone is a
fair trial (Kingma and Ba 2015 recommend 0.001, a value at which plain SGD hardly moves).

References:
    - Kingma and Ba (2015), Adam: a method for stochastic optimization,
      https://arxiv.org/abs/1412.6980
    - Loshchilov and Hutter (2017), SGDR, for the cosine schedule, https://arxiv.org/abs/1608.03983
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn, optim
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.regression import R2Score

#: Optimizers by name, each with the learning rate used when none is given.
OPTIMIZERS: dict[str, tuple[Callable[..., optim.Optimizer], float]] = {
    "sgd": (optim.SGD, 0.05),
    "momentum": (lambda p, lr: optim.SGD(p, lr, momentum=0.9), 0.01),
    "adam": (optim.Adam, 0.001),
    "rmsprop": (optim.RMSprop, 0.001),
    "adagrad": (optim.Adagrad, 0.01),
}

#: Learning rate as a fraction of the first one, by the share of training done (0 to 1).
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "exponential": lambda done: 0.01**done,
    "linear": lambda done: 1.0 - 0.99 * done,
    "cosine": lambda done: 0.5 * (1.0 + float(torch.cos(torch.tensor(torch.pi * done)))),
}


class Learner(pl.LightningModule):
    """Training and validation steps, with the optimizer chosen by name.

    Args:
        optimizer: A key of `OPTIMIZERS`.
        lr: Learning rate; None takes the optimizer's own from `OPTIMIZERS`.
        lr_schedule: A key of `SCHEDULES`.
    """

    #: Name of the metric, as printed.
    score_name = "score"

    def __init__(
        self, optimizer: str = "sgd", lr: float | None = None, lr_schedule: str = "constant"
    ) -> None:
        super().__init__()
        self.optimizer_name = optimizer
        self.lr = OPTIMIZERS[optimizer][1] if lr is None else lr
        self.lr_schedule = lr_schedule
        self.train_score = self.metric()
        self.val_score = self.metric()

    def metric(self) -> Metric:
        """Return a fresh metric; higher is better. Each kind of task below has its own."""
        raise NotImplementedError

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the scalar that is minimised. Each kind of task below has its own."""
        raise NotImplementedError

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        x, target = batch
        output = self(x)
        loss = self.loss(output, target)
        self.train_score(output.detach(), target)
        self.log("train_loss", loss, prog_bar=True)
        self.log("train_score", self.train_score, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and score on data that the training never sees."""
        x, target = batch
        output = self(x)
        self.val_score(output, target)
        self.log("val_loss", self.loss(output, target), sync_dist=True)
        self.log("val_score", self.val_score, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule, stretched over the planned number of steps."""
        make, _ = OPTIMIZERS[self.optimizer_name]
        optimizer = make(self.parameters(), lr=self.lr)
        total = max(1, int(self.trainer.estimated_stepping_batches))
        shape = SCHEDULES[self.lr_schedule]
        scheduler = optim.lr_scheduler.LambdaLR(optimizer, lambda step: shape(step / total))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class Classifier(Learner):
    """Cross-entropy, measured by accuracy.

    Args:
        classes: Number of classes.
        **optimization: See `Learner`.
    """

    score_name = "accuracy"

    def __init__(self, classes: int = 10, **optimization: Any) -> None:
        self.classes = classes
        super().__init__(**optimization)

    def metric(self) -> Metric:
        """Return the share of samples that are classified rightly."""
        return MulticlassAccuracy(self.classes, average="micro")

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of the logits."""
        return nn.functional.cross_entropy(output, target)


class Regressor(Learner):
    """Mean squared error, measured by R²: 0 for always answering the mean, 1 for perfection."""

    score_name = "R²"

    def metric(self) -> Metric:
        """Return the coefficient of determination."""
        return R2Score()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared error."""
        return nn.functional.mse_loss(output, target)
