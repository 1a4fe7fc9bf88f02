"""Counts every way in which a tensor's numbers can make the host wait for a device.

On the CPU nothing waits, so the ways themselves are counted, in the code path that CUDA takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

#: Operations whose result is a number, or has a size that depends on numbers.
_ASKS = (
    "_local_scalar_dense", "item", "equal", "nonzero", "is_nonzero", "masked_select", "unique",
    "_unique2", "unique_dim", "_coalesce", "is_set_to", "bincount", "histc",
)  # fmt: skip

#: Methods that leave torch without passing an operation.
_METHODS = ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__")


class HostReads(TorchDispatchMode):
    """Counts while `on`.

    Attributes:
        seen: Names of what was done, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.on = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if self.on and (name in _ASKS or masks):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))

    @contextmanager
    def counting(self) -> Iterator[None]:
        was, self.on = self.on, True
        try:
            yield
        finally:
            self.on = was


@contextmanager
def host_reads(patch: pytest.MonkeyPatch) -> Iterator[HostReads]:
    """Count operations and methods, and tensors made of Python numbers, which CUDA waits for too.

    On CUDA `torch.tensor(numbers, device=...)` copies from memory that is not pinned.
    """
    reads = HostReads()

    def counted(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def method(*args: Any, **kwargs: Any) -> Any:
            if reads.on:
                reads.seen.append(name)
            with reads_off(reads):
                return original(*args, **kwargs)

        patch.setattr(owner, name, method)

    for name in _METHODS:
        counted(torch.Tensor, name)
    for name in ("tensor", "as_tensor", "from_numpy"):
        counted(torch, name)
    counted(torch.Tensor, "new_tensor")
    with reads:
        yield reads


@contextmanager
def reads_off(reads: HostReads) -> Iterator[None]:
    """Count nothing twice."""
    was, reads.on = reads.on, False
    try:
        yield
    finally:
        reads.on = was
