"""Hooks on the user's modules: always removable, inert in copies, and harmless when they fail.

A hook that is a bound method or a closure would be deep-copied with everything it holds, or break
`torch.save(model)`. Ours are small callables that turn into nothing when copied or pickled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from lightning_gradwatch.probe.compiling import Retreat


class _Inert:
    """What a copied hook becomes."""

    def __call__(self, *_: Any, **__: Any) -> None:
        return None


class Uncopied:
    """A hook that turns into nothing when what holds it is copied or pickled."""

    __slots__ = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Inert:
        return _Inert()

    def __reduce__(self) -> tuple[type[_Inert], tuple[()]]:
        return (_Inert, ())


class Hook(Uncopied):
    """A callable for a module hook: passes the call on while enabled, returns what it returns.

    Args:
        call: What to do; given the hook's own arguments after `name`.
        name: Dotted name of the module, or what else stands for it.
        failed: Told of an exception, which never reaches the user's forward or backward.
    """

    __slots__ = (
        "call",
        "failed",
        "name",
    )  # thousands live at once: garbage collection looks at each

    def __init__(
        self, call: Callable[..., Any] | None, name: Any, failed: Callable[[Exception], None]
    ) -> None:
        self.call = call
        self.name = name
        self.failed = failed

    def __call__(self, *args: Any) -> Any:
        # A function compiled while we are armed would take the hook into its graph for good.
        if torch.compiler.is_compiling() or self.call is None:
            return None
        try:
            return self.call(self.name, *args)
        except Exception as error:
            self.call = None
            self.failed(error)
            return None


class HookSet:
    """Every hook of one purpose, with one way out.

    Args:
        on_modules: They sit on modules, and get out of the way of torch.compile.

    Attributes:
        retreat: How they do that; None for hooks on tensors and nodes.
    """

    def __init__(self, on_modules: bool = False) -> None:
        self._hooks: list[Hook] = []
        self._handles: list[RemovableHandle] = []
        self.retreat = Retreat(lambda: self._handles) if on_modules else None

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def add(self, hook: Hook, handle: RemovableHandle) -> None:
        """Remember a hook that was registered."""
        if self.retreat is not None and not self._hooks:
            self.retreat.begin()
        self._hooks.append(hook)
        self._handles.append(handle)

    def remove(self) -> None:
        """Remove every hook; those that a running graph still holds do nothing from now on."""
        for hook in self._hooks:
            hook.call = None
        for handle in self._handles:
            handle.remove()
        self._hooks.clear()
        self._handles.clear()
        if self.retreat is not None:
            self.retreat.end()


def is_compiled(module: nn.Module) -> bool:
    """Whether calls of this module run compiled code: hooks there break the graph or are lost."""
    return (
        type(module).__name__ in ("OptimizedModule", "ScriptModule", "RecursiveScriptModule")
        or getattr(module, "_compiled_call_impl", None) is not None
        or vars(module).get("_compiler_ctx") is not None
    )


def compiled_modules(root: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return `(name, module)` of the outermost compiled and scripted modules."""
    found: list[tuple[str, nn.Module]] = []
    for name, module in eager_modules(root):
        for child_name, child in module.named_children():
            if is_compiled(child):
                found.append((f"{name}.{child_name}" if name else child_name, child))
    return [("", root)] if is_compiled(root) else found


def has_boundary(module: nn.Module) -> bool:
    """Whether hooks on a compiled module run outside of the compiled code, and so at all."""
    return type(module).__name__ == "OptimizedModule"


def eager_modules(root: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return `(name, module)` of every module that no compiled module contains."""
    found: list[tuple[str, nn.Module]] = []
    seen: set[int] = set()
    todo = [("", root)]
    while todo:
        name, module = todo.pop()
        if id(module) in seen or is_compiled(module):
            continue
        seen.add(id(module))
        found.append((name, module))
        children = [(f"{name}.{n}" if name else n, m) for n, m in module.named_children()]
        todo += reversed(children)
    return found


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is one operation, as far as hooks can tell."""
    if isinstance(module, nn.MultiheadAttention) or is_compiled(module):
        return True
    children = (name for name, _ in module.named_children() if name != "parametrizations")
    return next(children, None) is None


def kind_of(module: nn.Module) -> str:
    """Class as the user wrote it, below what torch.compile or a parametrisation made of it."""
    return type(getattr(module, "_orig_mod", module)).__name__.removeprefix("Parametrized")
