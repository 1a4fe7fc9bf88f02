"""Hooks on the graph: on outputs of modules, and on nodes through which gradients leave them.

Each returns nothing, keeps numbers and no gradients, and asks the gate whether its pass counts. A
graph dies with its step, and its hooks with it: they are silenced all at once, not removed one by
one, save those on tensors that live on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from lightning_gradwatch.probe import activations
from lightning_gradwatch.probe.activations import Activation
from lightning_gradwatch.probe.calls import Call, Seen
from lightning_gradwatch.probe.gate import BackwardGate, graph_task
from lightning_gradwatch.probe.graph import Edge, Mark, Stretch, set_mark
from lightning_gradwatch.probe.hooks import Uncopied
from lightning_gradwatch.probe.norms import norm_of

_Gradients = Sequence[Tensor | None]


class Listeners:
    """The hooks on the graphs of one armed step.

    Args:
        gate: Tells which backward passes count.
        failed: Told of an exception inside a hook.

    Attributes:
        seen: What came back since the latest `take`.
        turn: Hooks of another turn are silent.
    """

    def __init__(self, gate: BackwardGate, failed: Callable[[Exception], None]) -> None:
        self.gate = gate
        self.failed = failed
        self.seen = Seen()
        self.turn = 0
        self._lasting: list[RemovableHandle] = []

    @property
    def arrived(self) -> list[Call]:
        """The calls to which a gradient came back."""
        return self.seen.out.calls

    def remove(self) -> None:
        """Silence the hooks, those that a running graph still holds too."""
        self.turn += 1
        for handle in self._lasting:
            handle.remove()
        self._lasting.clear()

    def take(self) -> Seen:
        """Return what came back, and start anew."""
        seen, self.seen = self.seen, Seen()
        return seen

    def at_output(
        self,
        call: Call | None,
        first: bool,
        edge: Edge,
        tensor: Tensor,
        mark: Mark | None,
        dim: int | None,
        name: str,
    ) -> None:
        """Hook an output of a module; one that a child returned has its hook already.

        Args:
            call: The call; None if the module is not watched, and its output is only marked.
            first: Whether it is the first of the call's outputs.
            edge: Where the output's gradient arrives.
            tensor: The output.
            mark: The mark of that edge.
            dim: Dimension of its units, if known.
            name: The module.
        """
        if isinstance(mark, _Tap):
            mark.names = (*mark.names, name)
            tap = mark
        else:
            tap = _Tap(self, name, dim, tensor.dim())
            handle = tensor.register_hook(tap)
            if tensor.is_leaf:
                self._lasting.append(handle)
            else:
                set_mark(edge, tap)
        if call is not None:
            tap.calls = (*tap.calls, call)
            if not first:
                tap.later = (*tap.later, call)

    def at_inputs(self, call: Call, stretch: Stretch) -> None:
        """Hook the nodes through which a module contributes to the gradients of its inputs."""
        if not stretch.complete:
            return
        if len(stretch.entries) == 1:
            node, i, _ = stretch.entries[0]
            node.register_hook(_Inlet(self, call, i))
            return
        uses: dict[Edge, int] = {}
        for _, _, edge in stretch.entries:
            uses[edge] = uses.get(edge, 0) + 1
        inflows = {edge: _Inflow(call, count) for edge, count in uses.items()}
        by_node: dict[Node, list[tuple[int, _Inflow]]] = {}
        for node, i, edge in stretch.entries:
            by_node.setdefault(node, []).append((i, inflows[edge]))
        for node, places in by_node.items():
            node.register_hook(_Inlets(self, places))

    def at_function(
        self, call: Call, node: Node, activation: Activation | None, dim: int | None, norms: bool
    ) -> None:
        """Hook an elementwise function, where both its gradients are side by side.

        Args:
            call: Its call.
            node: Its node of the graph.
            activation: How to judge it by its gradients; None: not.
            dim: Dimension of its units, if known.
            norms: Whether to measure its gradients: not if a module's hooks do.
        """
        node.register_hook(_Function(self, call, activation, dim, norms))


class _Hook(Uncopied):
    """A hook on the graph, which outlives nothing and harms nobody."""

    __slots__ = ("listeners", "turn")
    __torch_unserializable__ = True  # torch does not warn of it where a tensor is saved

    def __init__(self, listeners: Listeners) -> None:
        self.listeners = listeners
        self.turn = listeners.turn

    def __call__(self, *grads: Any) -> None:
        # A backward pass compiled while we are armed would take the hook along for good.
        listeners = self.listeners
        if self.turn != listeners.turn or torch.compiler.is_compiling():
            return
        try:
            if listeners.gate.counts():
                self.measure(listeners.seen, *grads)
        except Exception as error:
            self.turn = -1
            listeners.failed(error)

    def measure(self, seen: Seen, *grads: Any) -> None:
        raise NotImplementedError


class _Tap(_Hook, Mark):
    """Listens to one output tensor, for every module whose output it is.

    Attributes:
        calls: The calls that returned it.
        later: Those of them that returned another tensor first.
    """

    __slots__ = ("calls", "later", "names", "ndim", "unit_dim")

    def __init__(self, listeners: Listeners, name: str, unit_dim: int | None, ndim: int) -> None:
        self.listeners = listeners
        self.turn = listeners.turn
        self.names = (name,)
        self.unit_dim = unit_dim
        self.ndim = ndim
        self.calls: tuple[Call, ...] = ()
        self.later: tuple[Call, ...] = ()

    def measure(self, seen: Seen, grad: Tensor) -> None:
        if self.calls:
            norm, task = norm_of(grad), graph_task()
            for call in self.calls:
                seen.out.add(call, norm, task, call not in self.later)


class _Inlet(_Hook):
    """Measures what a call contributes to the gradient of an input that it uses once."""

    __slots__ = ("call", "i")

    def __init__(self, listeners: Listeners, call: Call, i: int) -> None:
        super().__init__(listeners)
        self.call = call
        self.i = i

    def measure(self, seen: Seen, into: _Gradients, out: _Gradients) -> None:
        grad = into[self.i]
        if grad is not None:
            seen.into.add(self.call, norm_of(grad), -1, True)


@dataclass(eq=False, slots=True)
class _Inflow:
    """Adds up what the uses of one input inside a module contribute to its gradient."""

    call: Call
    uses: int
    seen: int = 0
    total: Tensor | None = None

    def add(self, grad: Tensor | None) -> Tensor | None:
        """Add one, and return the whole when it is complete."""
        self.seen += 1
        if self.uses > 1 and grad is not None:
            # A copy: the gradient itself is autograd's, which may go on writing to it.
            self.total = grad.clone() if self.total is None else self.total + grad
        if self.seen < self.uses:
            return None
        whole = self.total if self.uses > 1 else grad
        self.seen, self.total = 0, None
        return whole


class _Inlets(_Hook):
    """Measures the same where a node leads to several inputs, or an input is used several times."""

    __slots__ = ("places",)

    def __init__(self, listeners: Listeners, places: Sequence[tuple[int, _Inflow]]) -> None:
        super().__init__(listeners)
        self.places = places

    def measure(self, seen: Seen, into: _Gradients, out: _Gradients) -> None:
        with torch.no_grad():
            for i, inflow in self.places:
                whole = inflow.add(into[i])
                if whole is not None:
                    seen.into.add(inflow.call, norm_of(whole), -1, True)


class _Function(_Hook):
    """Measures and judges an elementwise function."""

    __slots__ = ("activation", "call", "dim", "norms")

    def __init__(
        self,
        listeners: Listeners,
        call: Call,
        activation: Activation | None,
        dim: int | None,
        norms: bool,
    ) -> None:
        super().__init__(listeners)
        self.call = call
        self.activation = activation
        self.dim = dim
        self.norms = norms

    def measure(self, seen: Seen, into: _Gradients, out: _Gradients) -> None:
        grad_in, grad_out = into[0], out[0]
        if grad_in is None or grad_out is None:
            return
        if self.norms:
            seen.out.add(self.call, norm_of(grad_out), graph_task(), True)
            seen.into.add(self.call, norm_of(grad_in), -1, True)
        if self.activation is not None:
            units = activations.guess_unit_dim(grad_out.dim(), self.dim)
            with torch.no_grad():
                self.call.look_at_gradients(grad_out, grad_in, self.activation, units)
