"""Flow probe: the gradient at every module's output, its gain, and what activations do.

A forward hook registers hooks on the output tensors and on nodes of the graph. Full backward hooks
would break in-place operations, and miss outputs that are dictionaries. Hooks measure and return
nothing: no tensor of the user's is kept, changed or brought to the host, and between armed steps no
module has a hook. A gradient counts if the pass that carries it is one of the loss (`gate.py`).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from lightning_gradwatch.errors import GradWatchWarning
from lightning_gradwatch.layers import ROOT
from lightning_gradwatch.probe import activations
from lightning_gradwatch.probe.activations import Activation
from lightning_gradwatch.probe.calls import Call, Row
from lightning_gradwatch.probe.gate import BackwardGate
from lightning_gradwatch.probe.graph import (
    LIMIT,
    Edge,
    Stretch,
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
    eager_modules,
    has_boundary,
    is_leaf,
    kind_of,
)
from lightning_gradwatch.probe.listeners import Listeners
from lightning_gradwatch.probe.parameters import WRAPPED, clean_name
from lightning_gradwatch.probe.reading import Reading
from lightning_gradwatch.probe.sharded import is_sharded

#: What is seen where no module is hooked.
_NOTHING = Reading((), {})


@dataclass(slots=True)
class _Frame:
    """A module whose forward is running, and the edges of its inputs."""

    name: str
    inputs: dict[Edge, Tensor] = field(default_factory=dict)


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
        self._on_modules = HookSet(on_modules=True)
        self._listeners = Listeners(gate, failed)
        self._forget()

    def _forget(self) -> None:
        self._stack: list[_Frame] = []
        self._rows: dict[str, Row] = {}
        self._feeds: dict[str, set[str]] = {}
        self._calls = 0
        self._entered: set[str] = set()
        self._wanted: dict[str, bool] = {}

    @property
    def is_armed(self) -> bool:
        """Whether modules are hooked."""
        return bool(self._on_modules)

    def _watched(self, name: str) -> bool:
        if name not in self._wanted:
            self._wanted[name] = self._watches(name)
        return self._wanted[name]

    def arm(self) -> None:
        """Hook the modules as they are now; a batch begins."""
        self._listeners.remove()  # the graph of the batch before is gone
        self._stack.clear()
        if self._on_modules:
            return
        self._forget()
        modules = [
            (name, module)
            for name, module in eager_modules(self._module)
            # A wrapper has the name of what is inside it, and shows the same.
            if "parametrizations" not in name and WRAPPED.isdisjoint(module._modules)
        ]
        modules += self._compiled()
        for name, module in modules:
            before = Hook(self._enter, name, self._failed)
            after = Hook(self._leave, name, self._failed)
            self._on_modules.add(before, module.register_forward_pre_hook(before, with_kwargs=True))
            self._on_modules.add(after, module.register_forward_hook(after, always_call=True))

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
        arrived = self._listeners.take()
        reading = Reading([] if self._split else arrived, self._feeds)
        if not keep:
            self.disarm()
        return reading

    # ------------------------------------------------------------------ forward

    def _enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        frame = _Frame(clean_name(name) or ROOT)
        self._stack.append(frame)
        self._entered.add(name)
        self._see_split(module)
        if self._split or not torch.is_grad_enabled():
            return
        for tensor in tensors_in((args, kwargs)):
            frame.inputs.setdefault(edge_of(tensor), tensor)
        if not frame.inputs:
            return
        marks = [mark_of(edge) for edge in frame.inputs]
        sources = [mark for mark in marks if mark is not None]
        new = {e: t for (e, t), m in zip(frame.inputs.items(), marks, strict=True) if m is None}
        if new:
            stretch = walk(new)
            sources += stretch.marks
            self._functions(stretch.nodes, new, frame.name)
        feeds = self._feeds.setdefault(frame.name, set())
        feeds.update(source for mark in sources for source in mark.names)

    def _see_compiled(self) -> None:
        """Notice a compiled function that calls modules: their hooks do not run then."""
        retreat = self._on_modules.retreat
        if self._warned or retreat is None or not retreat.seen or self._entered:
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
        if self._split or not any(is_sharded(p) for p in module.parameters(recurse=False)):
            return
        self._split = True
        warnings.warn(
            "GradWatch: layers are split over processes (tensor parallel), each of which sees a "
            "part of their outputs: no gradient flow and no activations. Norms of parameters go "
            "on.",
            GradWatchWarning,
            stacklevel=2,
        )

    def _leave(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        name = clean_name(name) or ROOT
        frame = _Frame(name)
        while self._stack:  # what lies above ours was left by an exception
            frame = self._stack.pop()
            if frame.name == name:
                break
        if self._split or output is None or not torch.is_grad_enabled():
            return
        outputs = {edge_of(tensor): tensor for tensor in tensors_in(output)}
        if not outputs:
            return
        leaf = is_leaf(module)
        fresh = {e: t for e, t in outputs.items() if e not in frame.inputs and mark_of(e) is None}
        stretch, activation = Stretch(), activations.of_module(module)
        if fresh and not isinstance(module, nn.RNNBase):
            stretch = walk(fresh, frame.inputs if leaf else ())
            if not leaf:
                self._functions(stretch.nodes, fresh, name)
            elif not type(module).__module__.startswith("torch.nn."):
                inner = self._functions(stretch.nodes, fresh, name, inside=True)
                if any(a.dies for a in inner) and next(module.parameters(), None) is None:
                    activation = activations.DYING
        dims = {e: _unit_dim(module, t, frame.inputs) for e, t in outputs.items()}
        call = None
        if self._watched(name):
            call = self._call(name, kind_of(module), leaf)
            call.row.recurrent = next(module.parameters(), None) is not None
            if leaf:
                self._listeners.at_inputs(call, stretch)
            self._look(call, activation, fresh, dims)
            if leaf and call.row.recurrent and not frame.inputs:
                call.counts.measure_input(args)
        for i, (edge, tensor) in enumerate(outputs.items()):
            self._listeners.at_output(call, i, edge, tensor, dims[edge], name)

    def _call(self, name: str, kind: str, leaf: bool, functional: bool = False) -> Call:
        # Samples of a whole run hold these names: each only once in memory.
        row = self._rows.setdefault(name, Row(sys.intern(name), sys.intern(kind), leaf, functional))
        self._calls += 1
        return Call(row, self._calls)

    def _look(
        self,
        call: Call,
        activation: Activation | None,
        fresh: dict[Edge, Tensor],
        dims: dict[Edge, int | None],
    ) -> None:
        """Count what the first output of a module holds, if no child of it returned it."""
        for edge, tensor in fresh.items():
            dim = activations.guess_unit_dim(tensor.dim(), dims[edge])
            with torch.no_grad():
                call.counts = activations.by_values(tensor.detach(), activation, dim)
            if activation is not None and activation.by_gradient:
                self._listeners.at_function(call, edge[0], activation, dim, norms=False)
            return

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
            call = self._call(name, activation.name, leaf=True, functional=True)
            tensor = tensors.get(node)
            known = source.unit_dim if source is not None else None
            if tensor is not None:
                dim = activations.guess_unit_dim(tensor.dim(), known)
                with torch.no_grad():
                    call.counts = activations.by_values(tensor.detach(), activation, dim)
            by_gradient = tensor is None or activation.by_gradient
            self._listeners.at_function(
                call, node, activation if by_gradient else None, known, norms=True
            )
        return found


def _unit_dim(module: nn.Module, tensor: Tensor, inputs: Iterable[Edge]) -> int | None:
    marks = (mark_of(edge) for edge in inputs)
    inherited = next((m.unit_dim for m in marks if m is not None and m.ndim == tensor.dim()), None)
    return activations.unit_dim(module, tensor.dim(), inherited)
