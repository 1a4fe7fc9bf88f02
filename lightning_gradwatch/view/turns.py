"""Optimizers that take turns: which layers each trains, told from the gradients they have had."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.sample import Bools
from lightning_gradwatch.view.cells import ABSENT, NO_GRADIENT, Values


class Turns:
    """Tells a layer without a gradient from one that it was not the turn of.

    A recording says of each row whose it is and which parameters had a gradient. What an optimizer
    does not train has none in its rows, which says nothing about the layer: it was not asked.
    """

    def __init__(self) -> None:
        self._trained: dict[int, Bools] = {}

    @property
    def several(self) -> bool:
        """Whether more than one optimizer has been seen."""
        return len(self._trained) > 1

    def mark(self, values: Values, optimizers: npt.NDArray[np.integer]) -> Values:
        """Return norms of layers with `ABSENT` where it was another optimizer's turn.

        Args:
            values: Shape (T, L); `NO_GRADIENT` where a row has none.
            optimizers: Index of each row's optimizer, shape (T,).

        Example:
            >>> values = np.array([[1.0, NO_GRADIENT], [NO_GRADIENT, 2.0]], np.float32)
            >>> Turns().mark(values, np.array([0, 1])).tolist()
            [[1.0, -inf], [-inf, 2.0]]
        """
        if not values.size:
            return values
        rows = {int(who): optimizers == who for who in np.unique(optimizers)}
        for who, own in rows.items():
            self._learn(who, values if own.all() else values[own])
        if not self.several:
            return values
        marked = np.array(values, np.float32)
        for who, own in rows.items():
            others = [trained for one, trained in self._trained.items() if one != who]
            foreign = np.logical_or.reduce(others) & ~self._trained[who]
            part = marked[own]
            part[(part == NO_GRADIENT) & foreign] = ABSENT
            marked[own] = part
        return marked

    def _learn(self, who: int, values: Values) -> None:
        trained = self._trained.setdefault(who, np.zeros(values.shape[1], np.bool_))
        trained |= ~(values[0] <= NO_GRADIENT)  # most often all there is to learn
        unknown = np.flatnonzero(~trained)
        if len(unknown):
            trained[unknown] = ~(values[:, unknown] <= NO_GRADIENT).all(axis=0)
