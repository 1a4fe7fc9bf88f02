"""The autograd graph around a module: which edges enter and leave it, and what lies between.

Hooks on a tensor give the gradient of everything that uses it; a skip connection around a module
would then count as the module's own. What one module contributes passes the edges between its own
nodes and its input, so these are looked up. The search is short: it ends at outputs of modules,
which carry a mark in their node's `metadata` (strings and numbers; it dies with the graph).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

Edge = tuple[Node, int]

#: Nodes looked at before a search gives up: no module of torch's own has more, but RNNs.
LIMIT = 64

_KEY = "lightning_gradwatch"

#: Where gradients of leaves arrive.
_LEAF: type = type(get_gradient_edge(torch.zeros((), requires_grad=True)).node)


class Mark:
    """What is known of an edge that is the output of a module; whoever listens to it is one.

    Attributes:
        names: The modules whose output it is, innermost first.
        unit_dim: Dimension of the units, counted from the end; None: unknown.
        ndim: Dimensions of the tensor.
    """

    __slots__ = ()

    names: tuple[str, ...]
    unit_dim: int | None
    ndim: int


@dataclass(slots=True)
class Stretch:
    """A part of the graph, walked from its outputs back.

    Attributes:
        nodes: Its nodes, outputs first.
        entries: `(node, i, edge)`: the i-th edge of `node` leads to the stop `edge`.
        marks: Outputs of modules at which it ends.
        complete: Whether all of it was seen.
    """

    nodes: list[Node] = field(default_factory=list)
    entries: list[tuple[Node, int, Edge]] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    complete: bool = True


def tensors_in(value: Any, depth: int = 4, found: list[Tensor] | None = None) -> list[Tensor]:
    """Return every tensor that carries a gradient in nested containers and dataclasses.

    Args:
        value: Whatever a module was given or returned.
        depth: How many containers may lie inside one another.
        found: Where to add them; None: a new list.
    """
    found = [] if found is None else found
    if isinstance(value, Tensor):
        if value.requires_grad and is_plain(value):
            found.append(value)
    elif value is None or not depth:
        pass
    elif isinstance(value, (tuple, list)):
        for item in value:
            tensors_in(item, depth - 1, found)
    elif isinstance(value, Mapping):
        for item in value.values():
            tensors_in(item, depth - 1, found)
    elif is_dataclass(value) and not isinstance(value, type):
        for part in fields(value):
            tensors_in(getattr(value, part.name, None), depth - 1, found)
    return found


def _not_wrapped(_: Tensor) -> bool:
    return False


_is_wrapped: Callable[[Tensor], bool] = getattr(
    getattr(torch._C, "_functorch", None), "is_functorch_wrapped_tensor", _not_wrapped
)


def is_plain(tensor: Tensor) -> bool:
    """Whether its numbers are those of the whole tensor: not a shard, not inside a transform."""
    return type(tensor).__name__ != "DTensor" and not _is_wrapped(tensor)


def edge_of(tensor: Tensor) -> Edge:
    """Return the edge on which the tensor's gradient arrives."""
    node = tensor.grad_fn
    return (get_gradient_edge(tensor).node, 0) if node is None else (node, tensor.output_nr)


def _notes(node: Node) -> dict[str, Any]:
    # A property; torch's stub for nodes says method.
    return cast(dict[str, Any], node.metadata)


def mark_of(edge: Edge) -> Mark | None:
    """Return the mark of an edge, if it is the output of a module."""
    node, nr = edge
    mark: Mark | None = _notes(node).get(_KEY + str(nr) if nr else _KEY)
    return mark


def set_mark(edge: Edge, mark: Mark) -> None:
    """Note that an edge is the output of a module."""
    node, nr = edge
    _notes(node)[_KEY + str(nr) if nr else _KEY] = mark


def seen_before(node: Node) -> bool:
    """Whether this was asked of the node before: two searches may meet the same one."""
    notes = _notes(node)
    was = _KEY + ".seen" in notes
    notes[_KEY + ".seen"] = True
    return was


def walk(starts: Iterable[Edge], stops: Container[Edge] = (), limit: int = LIMIT) -> Stretch:
    """Walk from `starts` back to `stops`, to outputs of modules and to leaves.

    Args:
        starts: Edges of the tensors to explain; not looked up among the stops.
        stops: Edges to end at.
        limit: Number of nodes after which to give up.
    """
    stretch = Stretch()
    queue = deque(dict.fromkeys(node for node, _ in starts))
    known = set(queue)
    while queue:
        node = queue.popleft()
        if len(stretch.nodes) == limit:
            stretch.complete = False
            break
        stretch.nodes.append(node)
        for i, to in enumerate(node.next_functions):
            before = to[0]
            if before is None:
                continue
            edge = cast(Edge, to)
            if edge in stops:
                stretch.entries.append((node, i, edge))
            elif type(before) is _LEAF:
                continue  # never marked, and a look at its notes would make some
            elif (mark := mark_of(edge)) is not None:
                stretch.marks.append(mark)
            elif before not in known and before.next_functions:
                known.add(before)
                queue.append(before)
    return stretch
