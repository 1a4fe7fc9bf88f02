"""How much memory an object holds: all that can be reached from it and is nobody else's."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

_SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType)


def held(objects: Iterable[Any], but: Iterable[Any] = ()) -> int:
    """Return the bytes that can be reached from `objects`, arrays included.

    Args:
        objects: Where to begin.
        but: What is not counted, nor what is behind it.

    Example:
        >>> numbers = np.zeros(1000)
        >>> 8000 < held([[numbers, numbers]]) < 8500
        True
    """
    seen = {id(thing) for thing in but}
    queue, total = list(objects), 0
    while queue:
        thing = queue.pop()
        if id(thing) in seen or isinstance(thing, _SHARED):
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            # A view holds nothing itself: its base does.
            total += sys.getsizeof(thing) if thing.base is None else 0
            queue += [thing.base] if thing.base is not None else []
            continue
        total += sys.getsizeof(thing)
        if isinstance(thing, MethodType):
            queue.append(thing.__self__)
        else:
            queue += gc.get_referents(thing)
    return total
