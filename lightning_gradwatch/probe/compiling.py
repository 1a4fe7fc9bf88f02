"""Keeps our hooks out of what torch.compile traces.

A compiled function may call modules that are themselves eager. Were hooks on them while it is
traced, torch would guard on their presence, and compile the function anew at every armed step,
until it gives up and runs it eagerly for good. So hooks leave for as long as something is compiled.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from torch.utils.hooks import RemovableHandle


class Retreat:
    """Takes hooks off their modules while torch.compile traces, and puts them back after it.

    Args:
        handles: Returns the handles of the hooks.

    Attributes:
        seen: Whether anything was compiled since `begin`.
    """

    def __init__(self, handles: Callable[[], Iterable[RemovableHandle]]) -> None:
        self._handles = handles
        self._aside: list[tuple[dict[int, Any], int, Any]] = []
        self._told_by: Any = None
        self.seen = False

    def begin(self) -> None:
        """Listen for compilations. Without effect where nothing can have been compiled yet."""
        self.seen = False
        if self._told_by is not None or "torch._dynamo" not in sys.modules:
            return
        try:
            from torch._dynamo.callback import callback_handler

            callback_handler.register_start_callback(self._leave)
            callback_handler.register_end_callback(self._return)
        except (ImportError, AttributeError):  # another torch: hooks stay, at the price told above
            return
        self._told_by = callback_handler

    def end(self) -> None:
        """Listen no more; hooks that are aside stay away."""
        self._aside.clear()
        told_by, self._told_by = self._told_by, None
        if told_by is None:
            return
        for callbacks, own in (
            (told_by.start_callbacks, self._leave),
            (told_by.end_callbacks, self._return),
        ):
            if own in callbacks:  # `torch._dynamo.reset` may have cleared them
                callbacks.remove(own)

    def _leave(self, *_: Any) -> None:
        self.seen = True
        for handle in self._handles():
            for reference in (handle.hooks_dict_ref, *handle.extra_dict_ref):
                hooks = reference()
                if hooks is not None and handle.id in hooks:
                    self._aside.append((hooks, handle.id, hooks.pop(handle.id)))

    def _return(self, *_: Any) -> None:
        for hooks, key, hook in self._aside:
            hooks[key] = hook
        self._aside.clear()
