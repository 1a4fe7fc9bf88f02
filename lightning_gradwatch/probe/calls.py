"""Calls of modules as the hooks saw them: everything measured stays on its device.

Thousands of these live at once, and Python's garbage collector looks at every object that can hold
others: numbers stand in slots and in common lists, not in containers of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lightning_gradwatch.probe.counts import Counts, Number


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


class Call(Counts):
    """One call of a module, with what its output looked like.

    Args:
        row: Who was called.
        order: Number of the call, counted over all modules.
    """

    __slots__ = ("order", "row")

    def __init__(self, row: Row, order: int) -> None:
        self.forget()
        self.row = row
        self.order = order


@dataclass(slots=True)
class Arrivals:
    """Gradients that came back to calls, in order, as columns.

    Attributes:
        calls: To which call.
        norms: Their norms.
        passes: In which backward pass.
        firsts: Whether at the call's first output.
    """

    calls: list[Call] = field(default_factory=list)
    norms: list[Number] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    firsts: list[bool] = field(default_factory=list)

    def add(self, call: Call, norm: Number, task: int, first: bool) -> None:
        """Add one."""
        self.calls.append(call)
        self.norms.append(norm)
        self.passes.append(task)
        self.firsts.append(first)


@dataclass(slots=True)
class Seen:
    """What came back in a step.

    Attributes:
        out: Gradients at outputs.
        into: Contributions of calls to the gradients at their inputs.
    """

    out: Arrivals = field(default_factory=Arrivals)
    into: Arrivals = field(default_factory=Arrivals)
