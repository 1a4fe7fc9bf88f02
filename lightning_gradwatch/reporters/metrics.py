"""About ten scalars for the loggers, made of the steps since they were last written."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.sample import Floats, Sample

#: Prefix of every name, so that no metric of the user's is overwritten.
PREFIX = "gradwatch/"

#: Norms of zero are drawn at this decade: the smallest that float32 knows.
FLOOR = -45.0


def log10(value: float) -> float:
    """Return log10 of a norm: the floor for 0, NaN and Inf as they are.

    Example:
        >>> log10(1000.0), log10(0.0), log10(float("inf"))
        (3.0, -45.0, inf)
    """
    if not value > 0.0 or math.isinf(value):
        return FLOOR if value == 0.0 else value
    return max(FLOOR, math.log10(value))


class MetricsWindow:
    """Gathers the steps of one optimizer between two moments of logging.

    Norms are given as log10: TensorBoard leaves outliers out of a chart's range, and the outliers
    are what matters here.

    Args:
        optimizer: Index of the optimizer; its number follows the name from the second one on, as
            Lightning's own monitors do it.
    """

    def __init__(self, optimizer: int = 0) -> None:
        self._suffix = f"-{optimizer}" if optimizer else ""
        self._clear()

    def _clear(self) -> None:
        self._steps = self._nonfinite = self._clipped = self._actions = 0
        self._highest = -math.inf
        self._ratio: Floats | None = None

    def add(self, sample: Sample) -> None:
        """Take in a step."""
        self._steps += 1
        norm = sample.global_norm
        self._nonfinite += bool(np.any(sample.nonfinite))
        if math.isfinite(norm):
            self._highest = max(self._highest, norm)
        # A norm that came out lower than it went in, by more than rounding.
        self._clipped += bool(sample.clipped_norm < norm * (1.0 - 1e-6))
        if sample.update is not None:
            matrices = sample.layout.is_matrix
            ratio = sample.update.update_ratio
            self._ratio = ratio[matrices] if matrices.any() else ratio

    def act(self) -> None:
        """Count an intervention."""
        self._actions += 1

    def take(self, sample: Sample, findings: int) -> dict[str, float]:
        """Return the scalars for a step and begin anew.

        Args:
            sample: The step that is logged; given to `add` as well if it was recorded.
            findings: Number of findings of severity WARNING or higher so far.
        """
        highest = self._highest
        if math.isfinite(sample.global_norm):
            highest = max(highest, sample.global_norm)
        values = {
            "log10_norm": log10(sample.global_norm),
            "log10_norm_highest": log10(highest) if highest >= 0.0 else math.nan,
            "log10_norm_used": log10(sample.clipped_norm),
            **_by_layer(sample),
            "clipped_fraction": self._clipped / max(1, self._steps),
            "nonfinite_steps": float(self._nonfinite),
            "findings": float(findings),
            "interventions": float(self._actions),
        }
        middle = _median(self._ratio)
        if middle is not None:
            values["log10_update_ratio"] = log10(middle)
        self._clear()
        # What could not be measured is left out; a NaN that was measured is the news.
        unknown = {"log10_norm_used", "log10_norm_highest"}
        if not sample.has_grad.any():
            unknown.add("log10_norm")
        return {
            f"{PREFIX}{name}{self._suffix}": float(value)
            for name, value in values.items()
            if not (math.isnan(value) and name in unknown)
        }

    def names(self) -> dict[str, str]:
        """Return the full name of each scalar that charts are made of."""
        charted = (
            "log10_norm", "log10_norm_highest", "log10_norm_used", "log10_layer_norm_median",
            "log10_layer_norm_low", "log10_layer_norm_high", "log10_first_to_last",
            "log10_update_ratio", "clipped_fraction", "nonfinite_steps", "findings",
        )  # fmt: skip
        return {name: f"{PREFIX}{name}{self._suffix}" for name in charted}


def _by_layer(sample: Sample) -> dict[str, float]:
    """Return how the norms lie over the layers, and the first against the last."""
    there = sample.layer_has_grad
    norms: npt.NDArray[np.float64] = sample.layer_grad_norm[there]
    norms = norms[np.isfinite(norms)]
    if not len(norms):
        return {}
    low, middle, high = np.percentile(norms, [5.0, 50.0, 95.0])
    values = {
        "log10_layer_norm_low": log10(float(low)),
        "log10_layer_norm_median": log10(float(middle)),
        "log10_layer_norm_high": log10(float(high)),
    }
    if len(norms) > 1:
        values["log10_first_to_last"] = log10(float(norms[0])) - log10(float(norms[-1]))
    return values


def _median(ratio: Floats | None) -> float | None:
    if ratio is None:
        return None
    known = ratio[np.isfinite(ratio)]
    return float(np.median(known)) if len(known) else None
