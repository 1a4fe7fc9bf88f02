"""A sample that is made when somebody asks for more than its few most wanted numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_gradwatch.sample import Sample


class Brief:
    """Stands for a sample of an ordinary step: gradients and loss finite, no gradient scaler.

    A clip decides by the global norm alone. To make the whole sample between two training steps,
    with cold caches, would cost it several times what it costs later, among others.

    Args:
        step: Position on the loggers' x axis.
        loss: The loss; NaN: nobody told it.
        has_loss: Whether somebody did.
        global_norm: Norm over all gradients.
        norm_type: The p of the norms.
        make: Returns the sample.

    Example:
        >>> from lightning_gradwatch.testing import make_sample
        >>> brief = Brief(7, 0.5, True, 5.0, 2.0, lambda: make_sample(7, [3.0, 4.0], loss=0.5))
        >>> brief.global_norm, brief.layer_grad_norm
        (5.0, array([3., 4.]))
    """

    amp_overflow = False

    def __init__(
        self,
        step: int,
        loss: float,
        has_loss: bool,
        global_norm: float,
        norm_type: float,
        make: Callable[[], Sample],
    ) -> None:
        self.step = step
        self.loss = loss
        self.has_loss = has_loss
        self.global_norm = global_norm
        self.norm_type = norm_type
        self._make = make

    def __getattr__(self, name: str) -> Any:
        """Everything else is asked of the sample."""
        return getattr(self._make(), name)
