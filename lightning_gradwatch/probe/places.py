"""What stays the same of a module from one armed step to the next, found out once.

Between armed steps everything of ours leaves the processor's caches, so each line of Python costs
several times its usual: what can be known before the forward pass is not asked in it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lightning_gradwatch.layers import ROOT
from lightning_gradwatch.probe import activations
from lightning_gradwatch.probe.activations import Activation
from lightning_gradwatch.probe.calls import Row
from lightning_gradwatch.probe.hooks import eager_modules, is_compiled, is_leaf, kind_of
from lightning_gradwatch.probe.parameters import clean_name


@dataclass(slots=True)
class Place:
    """A module, without holding it.

    Attributes:
        row: Its row of a flow.
        plain: A leaf of torch's own: no function inside it is looked for.
        at_once: Its inputs are what they were when it has run, so that one hook sees all.
        fused: A recurrent module, whose graph is too large to walk.
        activation: What it applies to its output.
        dims: Dimension of its units by the number of dimensions of its output; None: inherited.
    """

    row: Row
    plain: bool
    at_once: bool
    fused: bool
    activation: Activation | None
    dims: dict[int, int | None] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, module: nn.Module) -> Place:
        """Look at a module.

        Args:
            name: Its dotted name, with those of wrappers.
            module: The module.
        """
        leaf = is_leaf(module)
        plain = leaf and type(module).__module__.startswith("torch.nn.")
        # Samples of a whole run hold these names: each only once in memory.
        row = Row(sys.intern(clean_name(name) or ROOT), sys.intern(kind_of(module)), leaf)
        row.recurrent = next(module.parameters(), None) is not None
        return cls(
            row=row,
            plain=plain,
            at_once=plain
            and not module._modules
            and not getattr(module, "inplace", False)
            and "forward" not in vars(module)
            # Those would have inputs of their own.
            and not (module._backward_hooks or module._backward_pre_hooks),
            fused=isinstance(module, nn.RNNBase),
            activation=activations.of_module(module),
        )

    def unit_dim(self, module: nn.Module, ndim: int, inherited: int | None) -> int | None:
        """Return the dimension of its units, counted from the end; None: unknown.

        Args:
            module: The module.
            ndim: Dimensions of its output.
            inherited: The same of its input, if that has as many dimensions.
        """
        if ndim not in self.dims:
            self.dims[ndim] = activations.unit_dim(module, ndim, None)
        dim = self.dims[ndim]
        return inherited if dim is None else dim


class Inventory:
    """Keeps what was made of each module of a tree, for as long as the tree stays the same.

    Args:
        root: The root module.
        make: Makes it, given `(name, module)` of each module that no compiled module contains.

    Attributes:
        has_compiled: Whether there are compiled modules besides.
    """

    def __init__(
        self, root: nn.Module, make: Callable[[list[tuple[str, nn.Module]]], list[Any]]
    ) -> None:
        self._root = root
        self._make = make
        self._print: list[Any] | None = None
        self._made: list[Any] = []
        self.has_compiled = False

    def take(self) -> tuple[list[nn.Module], list[Any]]:
        """Return the modules and what was made of them.

        Modules are told apart by identity and by what of them can change: nothing is held.
        """
        modules, fingerprint, self.has_compiled = _walk(self._root)
        if fingerprint != self._print:
            self._made = self._make(eager_modules(self._root))
            self._print = fingerprint
        return modules, self._made


def _walk(root: nn.Module) -> tuple[list[nn.Module], list[Any], bool]:
    """Return what `eager_modules` does, what tells of a change, and if others are compiled."""
    modules: list[nn.Module] = []
    fingerprint: list[Any] = []
    seen: set[int] = set()
    todo: list[nn.Module | None] = [root]
    has_compiled = False
    while todo:
        module = todo.pop()
        if module is None or id(module) in seen:
            continue
        if is_compiled(module):
            fingerprint += id(module), type(module)
            has_compiled = True
            continue
        own = module.__dict__
        children = own["_modules"]
        fingerprint += (
            id(module), type(module), len(children), len(own["_parameters"]), "forward" in own,
            own.get("inplace"), own.get("min_val"), own.get("max_val"),
            bool(own["_backward_hooks"] or own["_backward_pre_hooks"]),
        )  # fmt: skip
        seen.add(id(module))
        modules.append(module)
        if children:
            todo.extend(reversed(children.values()))
    return modules, fingerprint, has_compiled
