"""What happens to a run on its way: batches that arrive corrupt, as from a broken shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from benchmarks.zoo.train import Batches


def _not_a_number(x: Tensor, y: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    x = x.clone()
    x.view(len(x), -1)[0, 0] = float("nan")
    return x, y


def _huge(x: Tensor, y: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    return x * 1e6, y


def _large(x: Tensor, y: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    return x * 1e3, y


def _vast(x: Tensor, y: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    return x * 1e9, y


def _huge_targets(x: Tensor, y: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    return x, y * 1e6


def _wrong(x: Tensor, y: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """Every label is that of another class; every target has the wrong sign and thrice the size."""
    return x, -3 * y if y.is_floating_point() else (y + 1) % outputs


#: What becomes of a batch, by name.
KINDS: dict[str, Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]] = {
    "nan": _not_a_number,
    "large": _large,
    "huge": _huge,
    "vast": _vast,
    "huge targets": _huge_targets,
    "wrong labels": _wrong,
}


@dataclass(frozen=True)
class Accident:
    """Corrupt batches.

    Attributes:
        kind: A key of `KINDS`.
        first: Index of the first one, counted over epochs.
        count: How many.
        every: From one to the next.
    """

    kind: str
    first: int
    count: int = 1
    every: int = 1

    def strikes(self, batch: int) -> bool:
        """Whether the batch of this index is corrupt."""
        since, off = divmod(batch - self.first, self.every)
        return off == 0 and 0 <= since < self.count


class Struck:
    """A loader some of whose batches are corrupt.

    Args:
        batches: The sound ones.
        accidents: What happens to them.
        outputs: Classes of the task.
    """

    def __init__(self, batches: Batches, accidents: tuple[Accident, ...], outputs: int) -> None:
        self.batches, self.accidents, self.outputs = batches, accidents, outputs
        self._drawn = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self.batches:
            for accident in self.accidents:
                if accident.strikes(self._drawn):
                    x, y = KINDS[accident.kind](x, y, self.outputs)
            self._drawn += 1
            yield x, y
