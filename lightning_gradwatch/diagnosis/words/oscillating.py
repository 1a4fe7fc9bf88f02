"""What is said of `oscillating`."""

from __future__ import annotations

from lightning_gradwatch.diagnosis.case import Line
from lightning_gradwatch.diagnosis.words import common

CAUSES = (Line("The learning rate{lr} is too high: every step goes past the valley it aims for."),)

REMEDIES = (
    common.LOWER_LR,
    Line(
        "Let the learning rate fall over the run: torch.optim.lr_scheduler.CosineAnnealingLR.",
    ),
    common.NORMALISE,
    common.DECAY,
)
