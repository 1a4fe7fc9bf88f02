"""What a report is drawn from: the live history, or a recording read back from disk."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.layers import Layout


class Series(Protocol):
    """The arrays a report needs; `History` and `Recording` both have them.

    Shapes: T rows of recorded steps, U rows of sampled updates, P parameters, L layers.
    """

    @property
    def layout(self) -> Layout:
        """Names of parameters and layers."""

    @property
    def norm_type(self) -> float:
        """The p of the norms."""

    @property
    def recorded(self) -> int:
        """Optimizer steps seen, thinned ones included."""

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """Steps, shape (T,)."""

    @property
    def grad_norm(self) -> npt.NDArray[np.floating[Any]]:
        """Gradient norms before clipping, shape (T, P)."""

    @property
    def has_grad(self) -> npt.NDArray[np.bool_]:
        """Whether the parameter had a gradient, shape (T, P)."""

    @property
    def loss(self) -> npt.NDArray[np.float64]:
        """Loss, shape (T,)."""

    @property
    def update_ratio(self) -> npt.NDArray[np.floating[Any]]:
        """Weight change over weight norm, shape (T, P) or (U, P); NaN where not measured."""

    @property
    def layer_min(self) -> npt.NDArray[np.float64]:
        """Smallest finite norm of each layer over the whole run, shape (L,); Inf if none."""

    @property
    def layer_max(self) -> npt.NDArray[np.float64]:
        """Largest finite norm of each layer over the whole run, shape (L,); -Inf if none."""

    @property
    def layer_nonfinite(self) -> npt.NDArray[np.int64]:
        """Number of steps at which the layer's gradient held NaN or Inf, shape (L,)."""
