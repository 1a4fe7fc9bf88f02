"""Order of execution: which module is called first, seen in the first forward pass of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from lightning_gradwatch.probe.hooks import Hook, HookSet, eager_modules


class ExecutionOrder:
    """Notes the names of modules as they are called, until it is asked.

    Args:
        module: The root module.
        failed: Told of an exception inside a hook.
    """

    def __init__(self, module: nn.Module, failed: Callable[[Exception], None]) -> None:
        self._hooks = HookSet(on_modules=True)
        self._called: dict[str, None] = {}
        for name, child in eager_modules(module):
            if next(child.parameters(recurse=False), None) is not None or _is_parametrised(child):
                hook = Hook(self._note, name, failed)
                self._hooks.add(hook, child.register_forward_pre_hook(hook))

    def _note(self, name: str, *_: Any) -> None:
        self._called.setdefault(name)

    def finish(self) -> list[str]:
        """Remove the hooks and return the names seen, in order of first call."""
        self._hooks.remove()
        return list(self._called)


def _is_parametrised(module: nn.Module) -> bool:
    return "parametrizations" in module._modules
