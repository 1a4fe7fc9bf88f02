"""Which parameters are watched, under which names, and which of them an optimizer is about to move.

Decided anew whenever something changed, never from `requires_grad` at the start: layers are frozen
and unfrozen during a run, and manual optimization toggles the flag inside every step.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Container, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_gradwatch.layers import ROOT, Layout
from lightning_gradwatch.probe.gathered import Gatherer, Gradients, Held
from lightning_gradwatch.probe.sharded import is_sharded

#: A parameter, its column in the layout (-1: not watched) and its gradient.
Moving = tuple[nn.Parameter, int, Tensor]

#: Wrappers that put their name between the user's names.
_WRAPPERS = (
    "_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.", "_forward_module.",
)  # fmt: skip


def clean_name(name: str) -> str:
    """Return a dotted name as the user wrote it, without the names of wrappers."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def layer_of_parameter(name: str) -> str:
    """Return the layer that a parameter belongs to: its owner, or the parametrised module."""
    owner = name.rpartition(".")[0]
    return owner.partition(".parametrizations.")[0].removesuffix(".parametrizations") or ROOT


class _Optimized:
    """What one optimizer holds, good for as long as its groups hold the same lists.

    Args:
        lists: The groups' lists of parameters.
        column: Returns a parameter's column in the layout, -1 if it is not watched.
        known: Keys of the parameters that were trainable at any time.
    """

    def __init__(
        self,
        lists: list[list[nn.Parameter]],
        column: Callable[[nn.Parameter], int],
        known: Container[int],
    ) -> None:
        self._lists = lists
        self._sizes = [len(held) for held in lists]
        self.pairs = [(parameter, column(parameter)) for held in lists for parameter in held]
        self.unknown = [p for p, place in self.pairs if place < 0 and id(p) not in known]
        self.gatherer = Gatherer(Held.of(self.pairs))

    def is_of(self, lists: list[list[nn.Parameter]]) -> bool:
        """Whether these are still the lists, as long as they were."""
        return (
            len(lists) == len(self._lists)
            and all(map(operator.is_, lists, self._lists))
            and [len(held) for held in lists] == self._sizes
        )


class ParameterMap:
    """Names and columns of the parameters of one module.

    Args:
        module: The module that is trained.
        include: Glob patterns over dotted names of layers or parameters; None: everything.
        exclude: The same, to leave out.

    Attributes:
        layout: Names in order; rebuilt by `refresh` and `reorder`.
    """

    def __init__(
        self,
        module: nn.Module,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
    ) -> None:
        self._module = module
        self._include = include
        self._exclude = exclude
        self._order: dict[str, int] = {}
        self._known: set[int] = set()
        self._cache: dict[int, _Optimized] = {}
        self._whole: list[nn.Parameter] = []
        self._sharded: tuple[object, list[tuple[nn.Parameter, int]]] | None = None
        self.layout = Layout((), (), (), (), (), ())
        self.refresh()

    def watches(self, parameter: str) -> bool:
        """Whether `include` and `exclude` let this parameter through."""
        names = (parameter, layer_of_parameter(parameter))

        def matches(patterns: Sequence[str]) -> bool:
            return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)

        chosen = self._include is None or matches(self._include)
        return chosen and not (self._exclude is not None and matches(self._exclude))

    def watches_module(self, name: str) -> bool:
        """Whether the patterns let a module through: by its own name, or a parameter of its own."""

        def matches(patterns: Sequence[str]) -> bool:
            own = (p for p in self.layout.parameters if layer_of_parameter(p) == name)
            return any(fnmatchcase(n, pattern) for n in (name, *own) for pattern in patterns)

        chosen = self._include is None or matches(self._include)
        left_out = self._exclude is not None and any(fnmatchcase(name, p) for p in self._exclude)
        return chosen and not left_out

    def refresh(self, also: Sequence[Tensor] = ()) -> None:
        """Rebuild the layout from the parameters that are trainable now, or were at any time.

        Args:
            also: Parameters known to receive gradients, whatever `requires_grad` says just now.
        """
        self._known |= {id(p) for p in also}
        kinds = {clean_name(n) or ROOT: type(m).__name__ for n, m in self._module.named_modules()}
        rows: list[tuple[str, nn.Parameter]] = []
        for name, parameter in self._module.named_parameters():
            if is_lazy(parameter) or not (parameter.requires_grad or id(parameter) in self._known):
                continue
            self._known.add(id(parameter))
            if self.watches(clean_name(name)):
                rows.append((clean_name(name), parameter))
        layers = dict.fromkeys(layer_of_parameter(name) for name, _ in rows)
        ranked = self._ranked(list(layers))
        place = {layer: i for i, layer in enumerate(ranked)}
        rows.sort(key=lambda row: place[layer_of_parameter(row[0])])
        self._columns = {id(parameter): i for i, (_, parameter) in enumerate(rows)}
        self._cache.clear()
        self.layout = Layout(
            parameters=tuple(name for name, _ in rows),
            layers=tuple(ranked),
            layer_of=tuple(place[layer_of_parameter(name)] for name, _ in rows),
            numel=tuple(parameter.numel() for _, parameter in rows),
            ndim=tuple(parameter.dim() for _, parameter in rows),
            kinds=tuple(_kind(kinds.get(layer, "")) for layer in ranked),
        )

    def _ranked(self, layers: list[str]) -> list[str]:
        """Sort layers by execution; one that was not called itself stays behind its neighbour."""
        rank, ranks = -1, {}
        for layer in layers:
            rank = self._order.get(layer, rank)
            ranks[layer] = rank
        return sorted(layers, key=ranks.__getitem__)

    def reorder(self, executed: Sequence[str]) -> None:
        """Order layers as executed: names of modules in the order in which they were called."""
        self._order = {clean_name(name) or ROOT: i for i, name in reversed([*enumerate(executed)])}
        self.refresh()

    def moved_by(self, optimizer: torch.optim.Optimizer | None) -> list[tuple[nn.Parameter, int]]:
        """Return the parameters an optimizer holds, each with its column (-1: not watched).

        Without an optimizer: all parameters of the module.
        """
        return self._held_by(optimizer).pairs

    def _held_by(self, optimizer: torch.optim.Optimizer | None) -> _Optimized:
        if optimizer is None:
            now = list(self._module.parameters())
            if len(now) != len(self._whole) or not all(map(operator.is_, now, self._whole)):
                self._whole = now
            lists = [self._whole]
        else:
            lists = [group["params"] for group in optimizer.param_groups]
        cached = self._cache.get(id(optimizer))
        if cached is None or not cached.is_of(lists):
            cached = _Optimized(lists, lambda p: self._columns.get(id(p), -1), self._known)
            self._cache[id(optimizer)] = cached
        return cached

    def sharded(self, optimizer: torch.optim.Optimizer | None) -> list[tuple[nn.Parameter, int]]:
        """Return those of them that are spread over processes, each with its column."""
        moved = self.moved_by(optimizer)
        if self._sharded is None or self._sharded[0] is not moved:
            self._sharded = (moved, [(p, c) for p, c in moved if is_sharded(p)])
        return self._sharded[1]

    def gradients(self, optimizer: torch.optim.Optimizer | None) -> Gradients:
        """Return every parameter that has a gradient for the coming step."""
        held = self._held_by(optimizer)
        unknown = [p for p in held.unknown if p.grad is not None]
        if unknown:
            self.refresh(also=unknown)
            held = self._held_by(optimizer)
        return held.gatherer.gather()

    def named_gradients(
        self, optimizer: torch.optim.Optimizer | None
    ) -> list[tuple[str, nn.Parameter]]:
        """Return `(name, parameter)` of everything this step would move, watched or not."""
        return [
            (self.layout.parameters[column] if column >= 0 else f"(unwatched {i})", parameter)
            for i, (parameter, column) in enumerate(self.moved_by(optimizer))
            if parameter.grad is not None
        ]


def _kind(name: str) -> str:
    """Class name without the prefix that parametrisation puts before it."""
    return name.removeprefix("Parametrized")
