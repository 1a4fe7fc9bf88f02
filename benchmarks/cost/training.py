"""The training that is timed: nothing logged, nothing saved, batches that cost nothing to make."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn


class Task(pl.LightningModule):
    """Trains a model that brings its own data.

    Args:
        model: Returns the loss of the next batch.
        lr: Of AdamW, whose other settings are torch's own.
    """

    def __init__(self, model: nn.Module, lr: float = 1e-4) -> None:
        super().__init__()
        self.model = model
        self.lr = lr

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One step."""
        loss: Tensor = self.model()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW as it comes."""
        return torch.optim.AdamW(self.parameters(), lr=self.lr)
