"""`no_gradient`: parameters that require a gradient and never get one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.detectors.sentences import names
from lightning_gradwatch.errors import check_int
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.layers import Layout
from lightning_gradwatch.sample import Bools, Sample

_NOBODY = Layout((), (), (), (), (), ())


class NoGradient:
    """Finds trainable parameters that never had a gradient, or that no optimizer holds.

    With several optimizers a parameter has a gradient in the steps of its own one only; it counts
    as served from the first such step on. Each parameter is told once.

    Args:
        patience: Optimizer steps, of any optimizer, that a parameter is given, >= 1.

    Raises:
        TypeError: An argument is not an int.
        ValueError: An argument is out of range.

    Example:
        >>> from lightning_gradwatch.testing import make_sample, replay
        >>> samples = [make_sample(t, {"a.weight": 1.0, "old.weight": None}) for t in range(100)]
        >>> [finding] = replay(NoGradient(patience=20), samples)
        >>> finding.first_step, finding.summary
        (19, 'old.weight has had no gradient in 20 steps.')
    """

    def __init__(self, patience: int = 20) -> None:
        self.patience = check_int("patience", patience, at_least=1)
        self.reset()

    def reset(self) -> None:
        """Forget the run."""
        self._layout = _NOBODY
        self._waiting: Bools = np.zeros(0, np.bool_)
        self._age: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def update(self, sample: Sample) -> Iterator[Finding]:
        """Strike out who has a gradient now; name those who have waited too long."""
        if sample.layout is not self._layout:
            self._adopt(sample.layout)
        self._waiting &= ~sample.has_grad
        if not self._waiting.any():
            return
        self._age[self._waiting] += 1
        due = self._waiting & (self._age >= self.patience)
        if due.any():
            self._waiting &= ~due
            yield self._finding(sample, due)

    def _finding(self, sample: Sample, due: Bools) -> Finding:
        layout = sample.layout
        left = [layout.parameters[i] for i in np.flatnonzero(due)]
        verb = "has" if len(left) == 1 else "have"
        return Finding(
            code="no_gradient",
            severity=Severity.INFO,
            layers=tuple(layout.layers[i] for i in np.unique(layout.layer_index[due])),
            first_step=sample.step,
            last_step=sample.step,
            evidence={
                "parameters": float(len(left)),
                "elements": float(np.asarray(layout.numel)[due].sum()),
                "steps": float(self.patience),
            },
            summary=f"{names(left, thing='parameter')} {verb} had no gradient in {self.patience} "
            f"step{'s' if self.patience > 1 else ''}.",
        )

    def _adopt(self, layout: Layout) -> None:
        """Carry the counts over to a new layout, by name."""
        age = dict(zip(self._layout.parameters, self._age.tolist(), strict=True))
        served = dict(zip(self._layout.parameters, (~self._waiting).tolist(), strict=True))
        self._layout = layout
        self._waiting = np.array([not served.get(n, False) for n in layout.parameters], np.bool_)
        self._age = np.array([age.get(n, 0) for n in layout.parameters], np.int64)

    def state_dict(self) -> dict[str, Any]:
        """Return the layout last seen and the counts."""
        return {
            "layout": self._layout.to_dict(),
            "waiting": self._waiting.tolist(),
            "age": self._age.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._layout = Layout.from_dict(state["layout"])
        self._waiting = np.array(state["waiting"], np.bool_)
        self._age = np.array(state["age"], np.int64)
