"""Calls of modules as the hooks saw them: everything measured stays on its device."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from lightning_gradwatch.probe.activations import Counts


@dataclass(slots=True)
class Row:
    """A module or function.

    Attributes:
        name: Its name.
        kind: Its class or function.
        leaf: Whether it has no children.
        functional: Whether it is a function.
        recurrent: Whether its calls are time steps, in case it is fed its own output.
    """

    name: str
    kind: str
    leaf: bool
    functional: bool = False
    recurrent: bool = False


@dataclass(eq=False, slots=True)
class Call:
    """One call of a module, and what came back to it.

    Attributes:
        row: Who was called.
        order: Number of the call, counted over all modules.
        counts: What its output looked like.
        out: `(backward pass, which output, norm)` of the gradients at its outputs.
        into: Norms of its contributions to the gradients at its inputs.
    """

    row: Row
    order: int
    counts: Counts = field(default_factory=Counts)
    out: list[tuple[int, int, Tensor | float]] = field(default_factory=list)
    into: list[Tensor | float] = field(default_factory=list)
