"""The gradients that one optimizer is about to use, beside the parameters that they belong to.

Gathering them is the first thing that every step pays for, so nothing here is built for each
gradient where one call can fetch them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from lightning_gradwatch import native

#: More than all counts of writes together, so that no two kinds of change cancel.
_REPLACED, _MISSING = 1 << 32, 1 << 47

Columns = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Held:
    """Parameters held by an optimizer, N of them.

    Attributes:
        parameters: The parameters, in the optimizer's order.
        columns: Column of each in the layout, shape (N,); -1: not watched.
        keys: What to remember each one by.
    """

    parameters: tuple[nn.Parameter, ...]
    columns: Columns
    keys: tuple[int, ...]

    @classmethod
    def of(cls, pairs: Sequence[tuple[nn.Parameter, int]]) -> Held:
        """Arrange parameters and columns given as pairs."""
        return cls(
            tuple(parameter for parameter, _ in pairs),
            np.fromiter((column for _, column in pairs), np.intp, len(pairs)),
            tuple(id(parameter) for parameter, _ in pairs),
        )

    def at(self, places: Sequence[int]) -> Held:
        """Return those at these places."""
        return Held(
            tuple(self.parameters[i] for i in places),
            self.columns[list(places)],
            tuple(self.keys[i] for i in places),
        )


@dataclass(frozen=True)
class Gradients:
    """Parameters that have a gradient now, and the gradients: iterates over triples.

    Attributes:
        held: The parameters.
        grads: Their gradients, in the same order.
    """

    held: Held = field(default_factory=lambda: Held.of(()))
    grads: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.grads)

    def __iter__(self) -> Iterator[tuple[nn.Parameter, int, Tensor]]:
        return iter(zip(self.held.parameters, self.held.columns.tolist(), self.grads, strict=True))

    def those(self, wanted: Callable[[Tensor], bool]) -> Gradients:
        """Return the gradients that are `wanted`."""
        places = [i for i, grad in enumerate(self.grads) if wanted(grad)]
        if len(places) == len(self.grads):
            return self
        return Gradients(self.held.at(places), tuple(self.grads[i] for i in places))

    def version(self) -> int:
        """Return a number that changes whenever any of them is written to or replaced."""
        if native.compiled is not None:
            return int(native.compiled.versions(self.held.parameters, self.grads))
        return sum(
            _MISSING if p.grad is None else p.grad._version + _REPLACED * (p.grad is not g)
            for p, g in zip(self.held.parameters, self.grads, strict=True)
        )


#: No gradient at all.
NONE = Gradients()


class Gatherer:
    """Fetches the gradients of parameters that stay the same from step to step.

    Args:
        held: The parameters.
    """

    def __init__(self, held: Held) -> None:
        self.held = held
        self._some: tuple[list[int], Held] = ([], Held.of(()))

    def gather(self) -> Gradients:
        """Return those that have a gradient now."""
        grads: tuple[Tensor | None, ...]
        if native.compiled is not None:
            grads, missing = native.compiled.gradients(self.held.parameters)
        else:
            grads = tuple([p.grad for p in self.held.parameters])
            missing = sum([g is None for g in grads])
        if not missing:
            return Gradients(self.held, grads)  # type: ignore[arg-type]  # none is None
        # Frozen layers: the same ones have none at each step.
        places = [i for i, grad in enumerate(grads) if grad is not None]
        if self._some[0] != places:
            self._some = (places, self.held.at(places))
        return Gradients(self._some[1], tuple([g for g in grads if g is not None]))
