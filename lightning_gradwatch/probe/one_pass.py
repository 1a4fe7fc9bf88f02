"""Weights in plain memory: the compiled reader copies all in one call, and compares all in another.

Others (on a device, sparse, complex, transposed, of a subclass) are left to torch, and so is what
the step moved out of the reader's reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lightning_gradwatch import native
from lightning_gradwatch.probe.gathered import Held
from lightning_gradwatch.sample import Floats

#: What the reader notes of each weight that it copied (`Row` in weights.h).
_ROW = np.dtype(
    [
        (name, np.int64)
        for name in (
            "place", "column", "kind", "numel", "step", "offset", "places", "apart", "room",
            "start",
        )
    ]
)  # fmt: skip

#: What the reader calls each dtype.
_KINDS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass
class Left:
    """A weight that was copied here and has to be compared with torch.

    Attributes:
        place: Its column of the sums.
        parameter: The parameter.
        column: Its column in the layout.
        numel: How many elements it had when it was copied.
        before: Its measured elements, as they were then.
        known: Its direction at the measured step before, to be written over.
    """

    place: int
    parameter: nn.Parameter
    column: int
    numel: int
    before: Tensor
    known: Tensor


class OnePass:
    """Copies weights, and compares them with their copies.

    Args:
        exact: Elements of a larger weight are copied at this many places.
        sketch: Elements of each gradient that are kept as its direction, at most.
    """

    def __init__(self, exact: int, sketch: int) -> None:
        self._most = (exact, sketch)
        self._known = np.zeros(0, np.uint8)
        self._starts, self._sizes = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._arranged = b""
        self.forget()

    def forget(self) -> None:
        """Drop the copies."""
        self._parameters: tuple[nn.Parameter, ...] = ()
        self._rows: np.ndarray | None = None
        self._copy = bytearray()

    def __bool__(self) -> bool:
        """Whether anything was copied."""
        return self._rows is not None

    def copy(self, held: Held) -> list[int]:
        """Copy what can be copied here; return the places of the others."""
        if native.compiled is None:
            return list(range(len(held.parameters)))
        rows = np.empty(len(held.parameters), _ROW)
        self._copy, used, left = native.compiled.copy_weights(
            held.parameters, held.columns, rows, *self._most
        )
        if used:
            self._rows, self._parameters = rows[:used], held.parameters
        return list(left)

    def compare(self, keep: bool) -> tuple[list[int], Floats, Iterator[Left]]:
        """Measure what became of the weights that were copied, and drop the copies.

        Args:
            keep: The gradients are what those of the next measured step are compared with.

        Returns:
            Columns; the rows that `UpdateMeter.after` returns, shape (6, columns); and the weights
            whose numbers are not among them.
        """
        rows, parameters, copy = self._rows, self._parameters, self._copy
        assert native.compiled is not None
        assert rows is not None
        self.forget()
        columns, sizes = rows["column"], rows["room"]
        wanted = columns.tobytes() + sizes.tobytes()
        if wanted != self._arranged:
            self._arrange(columns, sizes)
            self._arranged = wanted
        rows["start"] = self._starts[columns]
        sums = np.empty((6, len(rows)))
        left = native.compiled.compare_weights(parameters, rows, copy, self._known, sums, keep)
        return columns.tolist(), sums, (self._left(k, rows[k], parameters, copy) for k in left)

    def _arrange(self, columns: np.ndarray, sizes: np.ndarray) -> None:
        """Make room for the directions of these columns; those of other columns stay."""
        starts, known = self._starts, self._known
        if columns.max() < len(self._sizes) and (self._sizes[columns] == sizes).all():
            return
        kept = np.zeros(max(len(self._sizes), int(columns.max()) + 1), np.int64)
        kept[: len(self._sizes)] = self._sizes
        had = kept.copy()
        kept[columns] = sizes
        self._sizes, self._starts = kept, np.cumsum(kept) - kept
        self._known = np.zeros(int(kept.sum()), np.uint8)
        for column in np.flatnonzero(had * (had == kept)):
            old, new, size = starts[column], self._starts[column], kept[column]
            self._known[new : new + size] = known[old : old + size]

    def _left(
        self, k: int, row: np.void, parameters: tuple[nn.Parameter, ...], copy: bytearray
    ) -> Left:
        numel, dtype = int(row["numel"]), _KINDS[row["kind"]]
        return Left(
            place=k,
            parameter=parameters[row["place"]],
            column=int(row["column"]),
            numel=numel,
            before=torch.frombuffer(
                copy,
                dtype=dtype,
                count=-(-numel // int(row["step"])),
                offset=int(row["offset"]),
            ),
            known=torch.frombuffer(
                self._known,
                dtype=torch.float64 if dtype == torch.float64 else torch.float32,
                count=int(row["places"]),
                offset=int(row["start"]),
            ),
        )
