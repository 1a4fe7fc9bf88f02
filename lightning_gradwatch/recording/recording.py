"""A recording as arrays: what `read_recording` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.layers import Layout
from lightning_gradwatch.recording.columns import combine_columns
from lightning_gradwatch.recording.tables import Rows
from lightning_gradwatch.sample import Bools, Floats

#: Values held in float64 at a time while extremes are gathered.
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Profile:
    """Gradient norm at the input of a recurrent module, time step by time step.

    Attributes:
        step: Optimizer step.
        optimizer: Index of the optimizer.
        module: Dotted name of the module.
        grad_norm: First time step to last, shape (T,).
    """

    step: int
    optimizer: int
    module: str
    grad_norm: Floats

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Profile:
        """Rebuild a profile from its line.

        Raises:
            KeyError, TypeError, ValueError: The line is not one.
        """
        norms = np.array([float(value) for value in data["grad_norm"]])
        return cls(int(data["step"]), int(data["optimizer"]), str(data["module"]), norms)


@dataclass(frozen=True)
class Recording:
    """A run read back from disk; a `Report` can be built from it as from the live history.

    Shapes: T steps, U sampled updates, P parameters, L layers.

    Attributes:
        folder: Where it lies.
        layout: Every parameter of all segments; the latest segment sets the order.
        norm_type: The p of the norms.
        rows: The steps as a structured array, shape (T,); see `docs/recording.md`.
        updates: The sampled updates as a structured array, shape (U,).
        profiles: Time profiles of recurrent modules.
        findings: In order of first step; merged over the run once it has ended.
        actions: What the actions did, in order.
        config: GradWatch's arguments.
        environment: Versions and devices.
        started: When each segment began, ISO 8601.
        problems: What could not be read, one sentence each.
    """

    folder: Path
    layout: Layout
    norm_type: float
    rows: Rows
    updates: Rows
    profiles: tuple[Profile, ...] = ()
    findings: tuple[Finding, ...] = ()
    actions: tuple[ActionRecord, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    started: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def recorded(self) -> int:
        """Number of steps."""
        return len(self.rows)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Dotted names, the columns of `grad_norm`."""
        return self.layout.parameters

    @property
    def layers(self) -> tuple[str, ...]:
        """Dotted names of the layers."""
        return self.layout.layers

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """Steps, shape (T,)."""
        return np.asarray(self.rows["step"], np.int64)

    @property
    def epochs(self) -> int:
        """Epochs begun."""
        return int(self.rows["epoch"].max(initial=-1)) + 1

    @property
    def optimizer(self) -> npt.NDArray[np.int64]:
        """Index of the optimizer of each row, shape (T,)."""
        return self.rows["optimizer"].astype(np.int64)

    @property
    def loss(self) -> Floats:
        """Loss, shape (T,); NaN where unknown."""
        return np.asarray(self.rows["loss"], np.float64)

    @property
    def lr(self) -> Floats:
        """Learning rate, shape (T,)."""
        return np.asarray(self.rows["lr"], np.float64)

    @property
    def global_norm(self) -> Floats:
        """Norm over all gradients before clipping, shape (T,)."""
        return np.asarray(self.rows["global_norm"], np.float64)

    @property
    def clipped_norm(self) -> Floats:
        """The norm the optimizer really used, shape (T,)."""
        return np.asarray(self.rows["clipped_norm"], np.float64)

    @property
    def grad_norm(self) -> npt.NDArray[np.float32]:
        """Gradient norms before clipping, shape (T, P); NaN without a gradient."""
        return np.asarray(self.rows["grad_norm"])

    @property
    def has_grad(self) -> Bools:
        """Whether the parameter had a gradient of this row's optimizer, shape (T, P)."""
        return np.asarray(self.rows["has_grad"])

    @property
    def update_steps(self) -> npt.NDArray[np.int64]:
        """Steps of the sampled updates, shape (U,)."""
        return np.asarray(self.updates["step"], np.int64)

    @cached_property
    def update_ratio(self) -> npt.NDArray[np.float32]:
        """Weight change over weight norm, shape (U, P)."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.asarray(self.updates["update_norm"] / self.updates["weight_norm"])

    @cached_property
    def _extremes(self) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
        depth = len(self.layers)
        least, most = np.full(depth, np.inf), np.full(depth, -np.inf)
        bad = np.zeros(depth, np.int64)
        stride = max(1, _CHUNK // max(1, len(self.parameters)))
        for start in range(0, len(self.rows) if depth else 0, stride):
            part = slice(start, start + stride)
            has = self.has_grad[part]
            there = np.logical_or.reduceat(has, self.layout.layer_starts, axis=1)
            present = np.where(has, self.grad_norm[part], 0.0).astype(np.float64)
            norms = combine_columns(present, self.layout.layer_starts, self.norm_type)
            finite = there & np.isfinite(norms)
            least = np.minimum(least, np.where(finite, norms, np.inf).min(axis=0))
            most = np.maximum(most, np.where(finite, norms, -np.inf).max(axis=0))
            bad += (there & ~finite).sum(axis=0)
        return least, most, bad

    @property
    def layer_min(self) -> Floats:
        """Smallest finite norm of each layer, shape (L,); Inf if none."""
        return self._extremes[0]

    @property
    def layer_max(self) -> Floats:
        """Largest finite norm of each layer, shape (L,); -Inf if none."""
        return self._extremes[1]

    @property
    def layer_nonfinite(self) -> npt.NDArray[np.int64]:
        """Number of steps at which the layer's gradient held NaN or Inf, shape (L,)."""
        return self._extremes[2]
