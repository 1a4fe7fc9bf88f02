"""Hooks on the graph: on outputs of modules, and on nodes through which gradients leave them.

Each returns nothing, keeps numbers and no gradients, and asks the gate whether its pass counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_gradwatch.probe import activations
from lightning_gradwatch.probe.activations import Activation
from lightning_gradwatch.probe.calls import Call
from lightning_gradwatch.probe.gate import BackwardGate, graph_task
from lightning_gradwatch.probe.graph import Edge, Mark, Stretch, mark_of, set_mark
from lightning_gradwatch.probe.hooks import Hook, HookSet
from lightning_gradwatch.probe.norms import norm_of


@dataclass(eq=False, slots=True)
class _Tap:
    """Listens to one output tensor, for every module whose output it is."""

    calls: list[tuple[Call, int]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class _Inflow:
    """Adds up what the uses of one input inside a module contribute to its gradient."""

    call: Call
    uses: int
    seen: int = 0
    total: Tensor | None = None

    def add(self, grad: Tensor | None) -> None:
        self.seen += 1
        if grad is not None and self.uses == 1:
            self.call.into.append(norm_of(grad))
            return
        if grad is not None:
            # A copy: the gradient itself is autograd's, which may go on writing to it.
            self.total = grad.clone() if self.total is None else self.total + grad
        if self.seen >= self.uses:
            if self.total is not None:
                self.call.into.append(norm_of(self.total))
            self.seen, self.total = 0, None


class Listeners:
    """The hooks on the graphs of one armed step.

    Args:
        gate: Tells which backward passes count.
        failed: Told of an exception inside a hook.

    Attributes:
        arrived: The calls to which a gradient came back.
    """

    def __init__(self, gate: BackwardGate, failed: Callable[[Exception], None]) -> None:
        self._gate = gate
        self._failed = failed
        self._hooks = HookSet()
        self.arrived: dict[Call, None] = {}

    def remove(self) -> None:
        """Remove the hooks, and silence those that a running graph still holds."""
        self._hooks.remove()

    def take(self) -> list[Call]:
        """Return the calls to which a gradient came back, and start anew."""
        arrived, self.arrived = list(self.arrived), {}
        return arrived

    # ------------------------------------------------------------------ outputs of modules

    def at_output(
        self, call: Call | None, i: int, edge: Edge, tensor: Tensor, dim: int | None, name: str
    ) -> None:
        """Hook the i-th output of a module; one that a child returned has its hook already.

        Args:
            call: The call; None if the module is not watched, and its output is only marked.
            i: Which of the call's outputs.
            edge: Where the output's gradient arrives.
            tensor: The output.
            dim: Dimension of its units, if known.
            name: The module.
        """
        mark = None if tensor.is_leaf else mark_of(edge)
        if mark is None:
            tap = _Tap()
            hook = Hook(lambda _, grad: self._came_out(tap, grad), name, self._failed)
            self._hooks.add(hook, tensor.register_hook(hook))
            mark = Mark([], tap, dim, tensor.dim())
            if not tensor.is_leaf:
                set_mark(edge, mark)
        mark.names.append(name)
        if call is not None:
            mark.tap.calls.append((call, i))

    def _came_out(self, tap: _Tap, grad: Tensor) -> None:
        if not tap.calls or not self._gate.counts():
            return
        with torch.no_grad():
            norm = norm_of(grad)
        for call, i in tap.calls:
            call.out.append((graph_task(), i, norm))
            self.arrived[call] = None

    # ------------------------------------------------------------------ inputs of modules

    def at_inputs(self, call: Call, stretch: Stretch) -> None:
        """Hook the nodes through which a module contributes to the gradients of its inputs."""
        if not stretch.complete:
            return
        uses: dict[Edge, int] = {}
        for _, _, edge in stretch.entries:
            uses[edge] = uses.get(edge, 0) + 1
        inflows = {edge: _Inflow(call, count) for edge, count in uses.items()}
        by_node: dict[Node, list[tuple[int, _Inflow]]] = {}
        for node, i, edge in stretch.entries:
            by_node.setdefault(node, []).append((i, inflows[edge]))
        for node, places in by_node.items():
            self._on_node(node, call, self._went_in, places)

    def _went_in(
        self,
        places: Sequence[tuple[int, _Inflow]],
        into: Sequence[Tensor | None],
        out: Sequence[Tensor | None],
    ) -> None:
        for i, inflow in places:
            inflow.add(into[i])

    # ------------------------------------------------------------------ functions

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
        self._on_node(node, call, self._passed, (call, activation, dim, norms))

    def _passed(
        self,
        what: tuple[Call, Activation | None, int | None, bool],
        into: Sequence[Tensor | None],
        out: Sequence[Tensor | None],
    ) -> None:
        call, activation, dim, norms = what
        grad_in, grad_out = into[0], out[0]
        if grad_in is None or grad_out is None:
            return
        if norms:
            call.out.append((graph_task(), 0, norm_of(grad_out)))
            call.into.append(norm_of(grad_in))
            self.arrived[call] = None
        if activation is not None:
            units = activations.guess_unit_dim(grad_out.dim(), dim)
            more = activations.by_gradients(grad_out, grad_in, activation, units)
            call.counts.of |= more.of
            call.counts.active = more.active

    def _on_node(self, node: Node, call: Call, measure: Callable[..., None], *what: object) -> None:
        def seen(_: str, into: Sequence[Tensor | None], out: Sequence[Tensor | None]) -> None:
            if self._gate.counts():
                with torch.no_grad():
                    measure(*what, into, out)

        hook = Hook(seen, call.row.name, self._failed)
        self._hooks.add(hook, node.register_hook(hook))
