"""Names and places of what is watched: parameters, the layers that own them, and their order.

Plain data without torch, so that detectors, the recording and the tab share it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

#: Name shown for parameters that the root module owns itself.
ROOT = "(root)"


def combine_norms(norms: npt.NDArray[np.float64], norm_type: float = 2.0) -> float:
    """Return the p-norm of a whole from the p-norms of its parts, without over- or underflow.

    Args:
        norms: Norms of the parts, any shape; NaN and Inf pass through.
        norm_type: p > 0, or `inf`.

    Example:
        >>> combine_norms(np.array([3e-200, 4e-200]))
        5e-200
    """
    if norm_type == 2.0:  # nearly always, and then one call will do
        square = float(np.vdot(norms, norms))
        if 1e-200 < square < 1e200:
            return math.sqrt(square)
    top = float(np.max(norms, initial=0.0))
    if np.isinf(norm_type) or not np.isfinite(top) or top == 0.0:
        return top
    return float(top * np.sum((norms / top) ** norm_type) ** (1.0 / norm_type))


@dataclass(frozen=True)
class Layout:
    """Which parameters (P of them) and layers (L of them) a sample's arrays speak of.

    Attributes:
        parameters: Dotted parameter names, grouped by layer, layers in order of execution.
        layers: Dotted names of the modules that own them, in order of execution
            (definition order until the first forward pass has shown it).
        layer_of: For each parameter the index of its layer, shape (P,), non-decreasing.
        numel: Elements of each parameter, shape (P,).
        ndim: Dimensions of each parameter, shape (P,); 1 for biases and norm scales.
        kinds: Class name of each layer's module, like `"Linear"`.

    Example:
        >>> layout = Layout.of({"a.weight": 6, "a.bias": 2, "b.weight": 4})
        >>> layout.layers, layout.layer_of
        (('a', 'b'), (0, 0, 1))
    """

    parameters: tuple[str, ...]
    layers: tuple[str, ...]
    layer_of: tuple[int, ...]
    numel: tuple[int, ...]
    ndim: tuple[int, ...]
    kinds: tuple[str, ...]

    @cached_property
    def layer_index(self) -> npt.NDArray[np.intp]:
        """`layer_of` as an array, for numpy's grouped reductions."""
        return np.asarray(self.layer_of, dtype=np.intp)

    @cached_property
    def layer_starts(self) -> npt.NDArray[np.intp]:
        """Index of each layer's first parameter, shape (L,), for `np.ufunc.reduceat`."""
        return np.searchsorted(self.layer_index, np.arange(len(self.layers)))

    @cached_property
    def is_matrix(self) -> npt.NDArray[np.bool_]:
        """True for weights with two or more dimensions, shape (P,)."""
        return np.asarray(self.ndim, dtype=np.int64) >= 2

    def reduce_layers(
        self, values: npt.NDArray[np.float64], norm_type: float
    ) -> npt.NDArray[np.float64]:
        """Combine per-parameter p-norms into per-layer p-norms.

        Args:
            values: Norms, shape (P,). NaN stands for "no gradient" only where the caller has
                already set it to 0; a NaN here makes the layer NaN, an Inf makes it Inf.
            norm_type: p > 0, or `inf`.

        Returns:
            Norms of the layers, shape (L,).
        """
        if not self.parameters:
            return np.zeros(0)
        with np.errstate(invalid="ignore", over="ignore", under="ignore", divide="ignore"):
            top = np.maximum.reduceat(values, self.layer_starts)
            if np.isinf(norm_type):
                return top
            scale = np.where((top > 0) & np.isfinite(top), top, 1.0)
            powers = np.power(values / scale[self.layer_index], norm_type)
            return scale * np.power(np.add.reduceat(powers, self.layer_starts), 1.0 / norm_type)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, fit for JSON."""
        return {
            "parameters": list(self.parameters),
            "layers": list(self.layers),
            "layer_of": list(self.layer_of),
            "numel": list(self.numel),
            "ndim": list(self.ndim),
            "kinds": list(self.kinds),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Sequence[Any]]) -> Layout:
        """Rebuild what `to_dict` returned."""
        names = ("parameters", "layers", "layer_of", "numel", "ndim", "kinds")
        return cls(**{name: tuple(data[name]) for name in names})

    @classmethod
    def of(cls, parameters: Mapping[str, int], kind: str = "Linear") -> Layout:
        """Build a layout from parameter names and sizes alone: for tests and readers.

        `*.bias` counts as one-dimensional, everything else as a matrix.
        """
        layers: dict[str, int] = {}
        owners = [name.rpartition(".")[0] or ROOT for name in parameters]
        for owner in owners:
            layers.setdefault(owner, len(layers))
        order = sorted(range(len(owners)), key=lambda i: layers[owners[i]])
        names = list(parameters)
        return cls(
            parameters=tuple(names[i] for i in order),
            layers=tuple(layers),
            layer_of=tuple(layers[owners[i]] for i in order),
            numel=tuple(int(parameters[names[i]]) for i in order),
            ndim=tuple(1 if names[i].endswith("bias") else 2 for i in order),
            kinds=(kind,) * len(layers),
        )
