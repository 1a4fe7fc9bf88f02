"""Flow probe: the gradient at every module's output, its gain, and what activations do.

A forward hook registers hooks on the output tensors and on nodes of the graph. Full backward hooks
would break in-place operations, and miss outputs that are dictionaries. Hooks measure and return
nothing: no tensor of the user's is kept, changed or brought to the host, and between armed steps no
module has a hook. A gradient counts if the pass that carries it is one of the loss (`gate.py`).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from lightning_gradwatch.errors import GradWatchWarning
from lightning_gradwatch.probe import activations
from lightning_gradwatch.probe.activations import Activation
from lightning_gradwatch.probe.calls import Call, Row, Seen
from lightning_gradwatch.probe.gate import BackwardGate
from lightning_gradwatch.probe.graph import (
    LIMIT,
    Edge,
    Mark,
    edge_of,
    mark_of,
    seen_before,
    tensors_in,
    walk,
)  # fmt: skip
from lightning_gradwatch.probe.hooks import (
    Hook,
    HookSet,
    compiled_modules,
    has_boundary,
    is_compiled,
)  # fmt: skip
from lightning_gradwatch.probe.listeners import Listeners
from lightning_gradwatch.probe.parameters import WRAPPED, clean_name
from lightning_gradwatch.probe.places import Inventory, Place
from lightning_gradwatch.probe.reading import Reading
from lightning_gradwatch.probe.sharded import is_sharded

#: What is seen where no module is hooked.
_NOTHING = Reading(Seen(), (), ())

#: The edges on which gradients of a module's inputs arrive, with their marks.
_Inputs = dict[Edge, Mark | None]


class FlowProbe:
    """Hooks every module while armed; told apart by name, added up over an optimizer step.

    Args:
        module: The root module.
        failed: Told of an exception inside a hook.
        gate: Tells which backward passes count.
        watches: Whether a module is wanted, by its name.
    """

    def __init__(
        self,
        module: nn.Module,
        failed: Callable[[Exception], None],
        gate: BackwardGate,
        watches: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._module = module
        self._failed = failed
        self._watches = watches
        self._warned = False
        self._split = False
        self._inventory = Inventory(module, self._hooks_for)
        self._on_modules = HookSet(on_modules=True)
        self._listeners = Listeners(gate, failed)
        self._forget()

    def _forget(self) -> None:
        self._stack: list[tuple[str, _Inputs]] = []
        self._rows: dict[str, Row] = {}
        self._fed: list[str] = []
        self._by: list[tuple[str, ...]] = []
        self._calls = 0
        self._ran = False
        self._wanted: dict[str, bool] = {}

    @property
    def is_armed(self) -> bool:
        """Whether modules are hooked."""
        return bool(self._on_modules)

    def _watched(self, name: str) -> bool:
        wanted = self._wanted.get(name)
        if wanted is None:
            wanted = self._wanted[name] = self._watches(name)
        return wanted

    def arm(self) -> None:
        """Hook the modules as they are now; a batch begins."""
        self._listeners.remove()  # the graph of the batch before is gone
        self._stack.clear()
        if self._on_modules:
            return
        self._forget()
        modules, hooks = self._inventory.take()
        if self._inventory.has_compiled:
            compiled = self._compiled()
            modules = [*modules, *(module for _, module in compiled)]
            hooks = [*hooks, *self._hooks_for(compiled)]
        enter, leave, once, add = self._enter, self._leave, self._once, self._on_modules.add
        for module, (before, after) in zip(modules, hooks, strict=True):
            if after is None:
                continue
            if before is None:
                after.call = once
                add(after, module.register_forward_hook(after, with_kwargs=True))
            else:
                before.call, after.call = enter, leave
                add(before, module.register_forward_pre_hook(before, with_kwargs=True))
                add(after, module.register_forward_hook(after, always_call=True))

    def _hooks_for(
        self, modules: list[tuple[str, nn.Module]]
    ) -> list[tuple[Hook | None, Hook | None]]:
        """Return what is to be called before and after each module, if anything is."""
        found: list[tuple[Hook | None, Hook | None]] = []
        for name, module in modules:
            # A wrapper has the name of what is inside it, and shows the same.
            if "parametrizations" in name or not (
                is_compiled(module) or WRAPPED.isdisjoint(module._modules)
            ):
                found.append((None, None))
                continue
            place = Place.of(name, module)
            before = None if place.at_once else Hook(None, place, self._failed)
            found.append((before, Hook(None, place, self._failed)))
        return found

    def _compiled(self) -> list[tuple[str, nn.Module]]:
        found = compiled_modules(self._module)
        if found and not self._warned:
            self._warned = True
            names = ", ".join(clean_name(name) or "the model itself" for name, _ in found)
            warnings.warn(
                f"GradWatch: compiled modules ({names}) are looked at from outside only: "
                "no gradient flow and no activations inside them. Norms of parameters go on.",
                GradWatchWarning,
                stacklevel=2,
            )
        return [(name, module) for name, module in found if has_boundary(module)]

    def disarm(self) -> None:
        """Remove every hook, those on a running graph too, and forget what they saw."""
        if not self._on_modules:
            return
        self._on_modules.remove()
        self._listeners.remove()
        self._listeners.take()
        self._forget()

    def take(self, keep: bool = False) -> Reading:
        """Return what was seen since `arm` or the latest `take`.

        Args:
            keep: Stay armed: other optimizers will step in the same batch.
        """
        if not self._on_modules:
            return _NOTHING
        self._see_compiled()
        seen = self._listeners.take()
        reading = Reading(Seen() if self._split else seen, self._fed, self._by)
        if not keep:
            self.disarm()
        return reading

    # ------------------------------------------------------------------ forward

    def _enter(self, place: Place, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._ran = True
        self._see_split(module)
        inputs: _Inputs = {}
        self._stack.append((place.row.name, inputs))
        if not self._split and torch.is_grad_enabled():
            self._come_in(place.row.name, args, kwargs, inputs)

    def _leave(self, place: Place, module: nn.Module, args: Any, output: Any) -> None:
        inputs: _Inputs = {}
        while self._stack:  # what lies above ours was left by an exception
            name, inputs = self._stack.pop()
            if name == place.row.name:
                break
        if not (self._split or output is None) and torch.is_grad_enabled():
            self._come_out(place, module, args, inputs, output)

    def _once(self, place: Place, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self._ran = True
        self._see_split(module)
        if not self._split and torch.is_grad_enabled():
            inputs: _Inputs = {}
            self._come_in(place.row.name, args, kwargs, inputs)
            self._come_out(place, module, args, inputs, output)

    def _come_in(self, name: str, args: Any, kwargs: Any, inputs: _Inputs) -> None:
        """Find out where a module's inputs come from."""
        tensors = tensors_in(args, 3)
        if kwargs:
            tensors_in(kwargs, 3, tensors)
        new = {}
        for tensor in tensors:
            edge = edge_of(tensor)
            if edge in inputs:
                continue
            inputs[edge] = mark = mark_of(edge)
            if mark is None:
                new[edge] = tensor
            else:
                self._fed.append(name)
                self._by.append(mark.names)
        if new:
            stretch = walk(new)
            self._functions(stretch.nodes, new, name)
            for mark in stretch.marks:
                self._fed.append(name)
                self._by.append(mark.names)

    def _see_compiled(self) -> None:
        """Notice a compiled function that calls modules: their hooks do not run then."""
        retreat = self._on_modules.retreat
        if self._warned or retreat is None or not retreat.seen or self._ran:
            return
        self._warned = True
        warnings.warn(
            "GradWatch: the modules are called by a compiled function, where no hook runs: no "
            "gradient flow and no activations. Norms of parameters go on.",
            GradWatchWarning,
            stacklevel=2,
        )

    def _see_split(self, module: nn.Module) -> None:
        """Notice tensor parallelism: FSDP has put whole parameters in place by the forward pass.

        A process has a part of each output then. Its norm would not be the module's, and asking for
        the whole would be a collective in the midst of the user's own.
        """
        for parameter in module._parameters.values():
            if type(parameter) is not nn.Parameter and is_sharded(parameter):
                break
        else:
            return
        if self._split:
            return
        self._split = True
        warnings.warn(
            "GradWatch: layers are split over processes (tensor parallel), each of which sees a "
            "part of their outputs: no gradient flow and no activations. Norms of parameters go "
            "on.",
            GradWatchWarning,
            stacklevel=2,
        )

    def _come_out(
        self, place: Place, module: nn.Module, args: Any, inputs: _Inputs, output: Any
    ) -> None:
        """Look at what a module returned, and listen to its gradients."""
        outputs: _Inputs = {}
        tensors, fresh = {}, {}
        for tensor in tensors_in(output):
            edge = edge_of(tensor)
            tensors[edge] = tensor
            outputs[edge] = mark = None if tensor.is_leaf else mark_of(edge)
            if mark is None and edge not in inputs:
                fresh[edge] = tensor
        if not outputs:
            return
        row = place.row
        activation, stretch = place.activation, None
        if fresh and not place.fused:
            if not row.leaf:
                self._functions(walk(fresh).nodes, fresh, row.name)
            elif place.plain:
                stretch = walk(fresh, inputs) if inputs else None
            else:
                stretch = walk(fresh, inputs)
                inner = self._functions(stretch.nodes, fresh, row.name, inside=True)
                if any(a.dies for a in inner) and not row.recurrent:
                    activation = activations.DYING
        call = None
        if self._watched(row.name):
            self._calls += 1
            call = Call(row, self._calls)
            if stretch is not None:
                self._listeners.at_inputs(call, stretch)
            if row.leaf and row.recurrent and not inputs:
                call.measure_input(args)
        looked = False
        for i, (edge, tensor) in enumerate(tensors.items()):
            dim = _unit_dim(place, module, tensor, inputs)
            # Of what it made itself, the first is looked at: what a child returned has been.
            if call is not None and not looked and edge in fresh:
                looked = True
                self._look(call, edge, tensor, activation, dim)
            self._listeners.at_output(call, i == 0, edge, tensor, outputs[edge], dim, row.name)

    def _look(
        self, call: Call, edge: Edge, tensor: Tensor, activation: Activation | None, dim: int | None
    ) -> None:
        """Count what an output holds."""
        dim = activations.guess_unit_dim(tensor.dim(), dim)
        call.look_at(tensor, activation, dim)
        if activation is not None and activation.by_gradient:
            self._listeners.at_function(call, edge[0], activation, dim, norms=False)

    # ------------------------------------------------------------------ functions

    def _functions(
        self, nodes: Sequence[Node], visible: dict[Edge, Tensor], owner: str, inside: bool = False
    ) -> list[Activation]:
        """Return the activations among nodes that belong to no module, and follow them.

        Args:
            nodes: Nodes of the graph.
            visible: Edges whose tensors are at hand.
            owner: The module in or before which they were found.
            inside: They are the inner life of a module without children.
        """
        found = []
        tensors = {edge[0]: tensor for edge, tensor in visible.items()}
        for node in reversed(nodes):
            activation = activations.of_node(node)
            if activation is None or seen_before(node):
                continue
            found.append(activation)
            source = next(iter(walk([(node, 0)], limit=LIMIT // 4).marks), None)
            if inside:
                name = f"{activation.name} in {owner}"
            elif source is None:
                name = f"{activation.name} before {owner}"
            else:
                name = f"{activation.name}({source.names[0]})"
            if not self._watched(owner if inside or source is None else source.names[0]):
                continue
            row = self._rows.get(name)
            if row is None:
                row = Row(sys.intern(name), activation.name, leaf=True, functional=True)
                self._rows[name] = row
            self._calls += 1
            call = Call(row, self._calls)
            tensor = tensors.get(node)
            known = source.unit_dim if source is not None else None
            if tensor is not None:
                dim = activations.guess_unit_dim(tensor.dim(), known)
                call.look_at(tensor, activation, dim)
            by_gradient = tensor is None or activation.by_gradient
            self._listeners.at_function(
                call, node, activation if by_gradient else None, known, norms=True
            )
        return found


def _unit_dim(place: Place, module: nn.Module, tensor: Tensor, inputs: _Inputs) -> int | None:
    ndim, inherited = tensor.dim(), None
    for mark in inputs.values():
        if mark is not None and mark.ndim == ndim:
            inherited = mark.unit_dim
            break
    return place.unit_dim(module, ndim, inherited)
