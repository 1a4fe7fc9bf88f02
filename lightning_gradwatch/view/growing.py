"""An array that is appended to: what is gathered of a run that nobody knows the length of."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class Growing:
    """An array that is appended to."""

    def __init__(self, dtype: npt.DTypeLike, columns: tuple[int, ...] = ()) -> None:
        self._array = np.empty((64, *columns), dtype)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, values: npt.NDArray[Any]) -> None:
        """Add values at the end."""
        stop = self._length + len(values)
        if stop > len(self._array):
            larger = np.empty((2 * stop, *self._array.shape[1:]), self._array.dtype)
            larger[: self._length] = self.values
            self._array = larger
        self._array[self._length : stop] = values
        self._length = stop

    @property
    def values(self) -> npt.NDArray[Any]:
        """What was added."""
        return self._array[: self._length]

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return self._array.nbytes
