"""What one measured optimizer step says of learning by depth: who moves, and with how much force.

Both numbers are free of scale: multiplying the loss, and with it every gradient, changes neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_gradwatch.sample import Bools, Floats, Sample, Update


@dataclass(frozen=True)
class Before:
    """What has to be kept of a step until its aftermath arrives with a later sample."""

    step: int
    loss: float
    parameters: tuple[str, ...]
    grad_norm: Floats
    has_grad: Bools
    layer_grad_norm: Floats

    @classmethod
    def of(cls, sample: Sample) -> Before:
        """Keep what is needed of `sample`."""
        return cls(
            sample.step,
            sample.loss,
            sample.layout.parameters,
            sample.grad_norm,
            sample.has_grad,
            sample.layer_grad_norm,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python types only."""
        return {
            "step": self.step,
            "loss": float(self.loss),
            "parameters": list(self.parameters),
            "grad_norm": self.grad_norm.tolist(),
            "has_grad": self.has_grad.tolist(),
            "layer_grad_norm": self.layer_grad_norm.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Before:
        """Rebuild what `to_dict` returned."""
        return cls(
            int(data["step"]),
            float(data["loss"]),
            tuple(data["parameters"]),
            np.asarray(data["grad_norm"], np.float64),
            np.asarray(data["has_grad"], np.bool_),
            np.asarray(data["layer_grad_norm"], np.float64),
        )


@dataclass(frozen=True)
class DepthReading:
    """Learning by depth in one step. "Early" is the half of the layers nearest to the input.

    Only layers with a weight matrix count: a bias before BatchNorm has no gradient by right.

    Attributes:
        layers: Names of the layers, in order of execution, n >= 2 of them.
        share: Expected decrease of the loss through the early layers, over that through all; 0..1.
        early_elasticity: Weight norm x gradient norm / loss, median over the early layers: by how
            many per cent the loss changes when the weights change by one.
        late_elasticity: The same, largest among the late layers.
        early_gradient: Largest matrix gradient of the early layers over the largest of all; 0..1.
        elasticity: By layer, shape (n,).
        norm: Gradient norm by layer, shape (n,).
        weight: Norm over all matrices.
    """

    layers: tuple[str, ...]
    share: float
    early_elasticity: float
    late_elasticity: float
    early_gradient: float
    elasticity: Floats
    norm: Floats
    weight: float


@np.errstate(over="ignore", invalid="ignore")
def read_depth(before: Before, sample: Sample) -> DepthReading | None:
    """Read the aftermath that `sample` carries of the step that `before` was kept of.

    Returns:
        None where the step says nothing: fewer than two layers with matrices, a non-finite number,
        or no weight moved (a learning rate of zero).
    """
    update, layout = sample.update, sample.layout
    if update is None or update.step != before.step or before.parameters != layout.parameters:
        return None
    has = before.has_grad & np.isfinite(update.descent) & np.isfinite(update.weight_norm)
    if not np.isfinite(before.grad_norm[has]).all():
        return None
    matrices = layout.is_matrix & has
    if not matrices.any():
        return None
    there = np.flatnonzero(np.logical_or.reduceat(matrices, layout.layer_starts))
    if len(there) < 2:
        return None
    half = len(there) // 2
    early = layout.layer_index < there[half]
    share = _share(update, has, early)
    if share is None:
        return None
    grad = np.where(matrices, _as_l2(before.grad_norm, sample), 0.0)
    force = np.where(matrices, grad * update.weight_norm, 0.0)
    by_layer = np.maximum.reduceat(force, layout.layer_starts)[there]
    # Without a loss only the comparison of early with late layers is left.
    scale = abs(before.loss) if math.isfinite(before.loss) and before.loss != 0 else math.nan
    if math.isnan(scale):
        scale = float(by_layer[half:].max()) or math.nan
    elasticity = by_layer / scale
    top = float(grad.max())
    return DepthReading(
        layers=tuple(layout.layers[i] for i in there),
        share=share,
        early_elasticity=float(np.median(elasticity[:half])),
        late_elasticity=float(elasticity[half:].max()),
        early_gradient=float(grad[early].max(initial=0.0)) / top if top > 0 else 0.0,
        elasticity=elasticity,
        norm=before.layer_grad_norm[there],
        weight=float(np.linalg.norm(update.weight_norm[matrices])),
    )


def step_length(before: Before, update: Update) -> float:
    """Return the decrease of the loss that the step promised, over the loss; NaN if unknown.

    Far above one, the step reached beyond where a straight line means anything.
    """
    if update.step != before.step or not math.isfinite(before.loss) or before.loss == 0:
        return math.nan
    if np.isnan(update.descent).all():
        return math.nan
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.nansum(update.descent)) / abs(before.loss)


def _share(update: Update, has: Bools, early: Bools) -> float | None:
    first = abs(float(update.descent[has & early].sum()))
    rest = abs(float(update.descent[has & ~early].sum()))
    total = first + rest
    return first / total if 0.0 < total < math.inf else None


def _as_l2(norms: Floats, sample: Sample) -> Floats:
    """Estimate L2 norms from p-norms, taking the elements of a gradient for equally large."""
    if sample.norm_type == 2.0:
        return norms
    power = 0.5 - (0.0 if math.isinf(sample.norm_type) else 1.0 / sample.norm_type)
    estimate: Floats = norms * np.asarray(sample.layout.numel, np.float64) ** power
    return estimate
