"""The compiled reader of norms and of weight changes, if this installation has one.

`_native` is a few hundred lines of C that read every tensor in one call, where torch's operations
cost a call or two for each. It is built when a C compiler is at hand, and needs a torch that offers
DLPack's table of functions. Without either, `compiled` is None and everything is done with torch
alone: more slowly, with the same results. `GRADWATCH_NATIVE=0` in the environment asks for that.
"""

from __future__ import annotations

import os
from types import ModuleType

import torch

#: DLPack's words for the CPU and for floating-point numbers.
_CPU, _FLOAT = 1, 2


def _load() -> ModuleType | None:
    """Return the module if it is there and understands this torch, else None."""
    if os.environ.get("GRADWATCH_NATIVE", "1") == "0":
        return None
    table = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if table is None:
        return None
    try:
        from lightning_gradwatch.native import _native

        _native.bind(table, torch.Tensor, torch.nn.Parameter)
        return _native if _understands(_native) else None
    except (ImportError, ValueError, TypeError, RuntimeError):
        return None


def _understands(native: ModuleType) -> bool:
    """Whether a tensor seen through the table is the tensor that torch shows."""
    probe = torch.arange(24.0, dtype=torch.float64).reshape(2, 3, 4)[:, 1:].transpose(0, 2)
    seen = native.describe(probe)
    shown = (probe.data_ptr(), _CPU, _FLOAT, 64, 1, 3, tuple(probe.shape), probe.stride())
    return bool(seen == shown)


#: The module, or None: looked up at each use, so that tests can take it away.
compiled = _load()
