"""What every test starts from: one thread, fixed seeds, quiet logs."""

from __future__ import annotations

import logging

import pytest
import torch


@pytest.fixture(autouse=True)
def _steady() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
