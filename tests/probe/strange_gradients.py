"""Puts before the compiled reader what it must not read; run by test_in_place.py, may crash."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from lightning_gradwatch import native


def _freed() -> torch.Tensor:
    tensor = torch.randn(100)
    tensor.untyped_storage().resize_(0)
    return tensor


def _fake() -> torch.Tensor:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        return torch.randn(3)


def _subclass() -> torch.Tensor:
    class Units(torch.Tensor):
        pass

    return torch.ones(3).as_subclass(Units)


def _unaligned() -> torch.Tensor:
    memory = bytearray(b"\0" + np.ones(8, np.float32).tobytes())
    return torch.frombuffer(memory, dtype=torch.float32, offset=1, count=8)


X = torch.randn(6, 4)
PLAIN = (torch.ones(4), torch.ones(9))
STRANGE: dict[str, Callable[[], Any]] = {
    "sparse": lambda: X.to_sparse(),
    "compressed": lambda: X.to_sparse_csr(),
    "expanded": lambda: torch.ones(1).expand(5),
    "expanded scalar": lambda: torch.tensor(1.0).expand(3, 4),
    "with gaps": lambda: X[:, ::2],
    "overlapping": lambda: torch.ones(10).as_strided((4, 4), (1, 2)),
    "overlapping, of equal strides": lambda: torch.ones(10).as_strided((4, 2), (1, 1)),
    "meta": lambda: X.to("meta"),
    "fake": _fake,
    "subclass": _subclass,
    "complex": lambda: torch.randn(3, dtype=torch.complex64),
    "conjugate": lambda: torch.randn(3, dtype=torch.complex64).conj(),
    "negative": lambda: torch.randn(3, dtype=torch.complex64).conj().imag,
    "quantised": lambda: torch.quantize_per_tensor(X, 0.1, 0, torch.qint8),
    "mkldnn": lambda: X.to_mkldnn(),
    "nested": lambda: torch.nested.nested_tensor([X, X]),
    "jagged": lambda: torch.nested.nested_tensor([X, X[:2]], layout=torch.jagged),
    "freed": _freed,
    "zero without memory": lambda: torch._efficientzerotensor(3),
    "unaligned": _unaligned,
    "integers": lambda: torch.arange(3),
    "booleans": lambda: torch.ones(3) > 0,
    "float8": lambda: X.to(torch.float8_e4m3fn),
    "lazy": lambda: nn.UninitializedParameter(),
    "parameter": lambda: nn.Parameter(X),
    "no tensor": lambda: 3,
    "None": lambda: None,
    "a name": lambda: "grad",
}


def left(grad: object) -> bool:
    """Whether the reader leaves it, without complaint and without writing a norm."""
    assert native.compiled is not None
    norms = np.full(3, -1.0)
    places = native.compiled.norms((PLAIN[0], grad, PLAIN[1]), norms, 2, 1 << 40)
    return places == [1] and norms.tolist() == [2.0, -1.0, 3.0]


def inside_transforms() -> list[bool]:
    """The same for the tensors that torch.func hands to a function."""
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(left(x))
        return x.sum()

    torch.func.vmap(look)(X)
    torch.func.grad(look)(X)
    torch.func.vmap(torch.func.grad(look))(X)
    torch.func.functionalize(look)(X)
    torch.func.jvp(look, (X,), (X,))
    return seen


def main() -> None:
    """Exit with an assertion if anything was read."""
    warnings.filterwarnings("ignore")
    made = 0
    for name, make in STRANGE.items():
        try:
            grad = make()
        except (AttributeError, NotImplementedError, RuntimeError) as error:
            print(f"{name}: cannot be made by this torch: {error}")
            continue
        made += 1
        assert left(grad), name
    assert made > len(STRANGE) - 4, made
    seen = inside_transforms()
    assert seen == [True] * 5, seen
    print("all left alone")


if __name__ == "__main__":
    main()
