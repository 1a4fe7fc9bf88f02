"""`nonfinite`: NaN or Inf in a gradient or in the loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lightning_gradwatch.detectors.sentences import names
from lightning_gradwatch.errors import check_int
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.sample import Sample


class NonFiniteGradient:
    """Finds NaN and Inf in the gradient of any parameter, and in the loss, at the step they come.

    A non-finite gradient spreads towards the input, so that the affected layer closest to the loss
    is the nearest to where it began. Where every layer is affected, it was there before the
    backward pass reached the first of them: in the forward pass, or in the loss.

    Under a gradient scaler, overflows are how the right scale is found. They only count if the loss
    itself is not finite, or if they do not end.

    Args:
        max_overflows: Overflows in a row that a gradient scaler is given, >= 1. Halving the scale
            that often divides it by more than a million.

    Raises:
        TypeError: An argument is not an int.
        ValueError: An argument is out of range.

    Example:
        >>> from lightning_gradwatch.testing import make_sample, replay
        >>> sample = make_sample(7, [float("nan"), float("nan"), 1.0], loss=0.3)
        >>> [finding] = replay(NonFiniteGradient(), [sample])
        >>> finding.summary
        'NaN or Inf in the gradient of 2 of 3 layers, layer1 closest to the loss; the loss is \
finite.'
    """

    def __init__(self, max_overflows: int = 20) -> None:
        self.max_overflows = check_int("max_overflows", max_overflows, at_least=1)
        self.reset()

    def reset(self) -> None:
        """Forget the run."""
        self._overflows: dict[int, int] = {}

    def update(self, sample: Sample) -> Iterator[Finding]:
        """Count what is not finite in this step."""
        # Parameters that are not watched count in the global norm alone.
        bad = sample.nonfinite
        gradient = bool(bad.any()) or (
            bool(sample.has_grad.any()) and not math.isfinite(sample.global_norm)
        )
        # Besides, a loss is NaN where nobody told it.
        lost = math.isinf(sample.loss) or (
            math.isnan(sample.loss) and (gradient or sample.has_loss)
        )
        overflows = self._overflows.get(sample.optimizer, 0) + 1 if sample.amp_overflow else 0
        if overflows or sample.optimizer in self._overflows:
            self._overflows[sample.optimizer] = overflows
        if not gradient and not lost:
            return
        if sample.amp_overflow and overflows <= self.max_overflows and math.isfinite(sample.loss):
            return
        yield self._finding(sample, lost, overflows)

    @staticmethod
    def _finding(sample: Sample, lost: bool, overflows: int) -> Finding:
        layout, bad = sample.layout, sample.nonfinite
        hit = np.unique(layout.layer_index[bad])
        reached = int(sample.layer_has_grad.sum())
        layers = tuple(layout.layers[i] for i in hit)
        everywhere = len(hit) == reached
        evidence = {
            "parameters": float(bad.sum()),
            "layers": float(len(hit)),
            "layers_with_gradient": float(reached),
            "loss_is_finite": float(math.isfinite(sample.loss)),
            "everywhere": float(everywhere),
        }
        if overflows:
            evidence["overflows"] = float(overflows)
        if sample.optimizer:
            evidence["optimizer"] = float(sample.optimizer)
        if not layers:
            summary = "NaN or Inf in the loss; the gradients are finite."
            if not lost:
                summary = "NaN or Inf in the gradient of a parameter that is not watched."
        else:
            loss = "the loss is not finite either" if lost else "the loss is finite"
            if everywhere:
                where = f"all {reached} layers" if reached > 1 else names(layers)
            else:
                where = f"{len(hit)} of {reached} layers, {layers[-1]} closest to the loss"
            summary = f"NaN or Inf in the gradient of {where}; {loss}."
        if overflows:
            summary = f"{summary[:-1]}; the gradient scaler has overflowed {overflows} times in a "
            summary += "row." if overflows > 1 else "row so far."
        step = sample.step
        return Finding(
            "nonfinite", Severity.ERROR, layers, step, step, evidence=evidence, summary=summary
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the running counts of overflows."""
        return {"overflows": {str(k): v for k, v in self._overflows.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._overflows = {int(k): int(v) for k, v in state["overflows"].items()}
