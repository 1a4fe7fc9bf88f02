"""What the tests of the flow probe share: run something armed, read it, look a module up."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradwatch.probe.flow import FlowProbe
from lightning_gradwatch.probe.gate import BackwardGate
from lightning_gradwatch.probe.host import Host
from lightning_gradwatch.sample import Flow, ModuleFlow


def refuse(error: Exception) -> None:
    raise error


def armed(module: nn.Module, **options: Any) -> FlowProbe:
    probe = FlowProbe(module, refuse, BackwardGate(module), **options)
    probe.arm()
    return probe


def read(probe: FlowProbe, scale: float = 1.0, keep: bool = False) -> Flow | None:
    reading = probe.take(keep)
    return reading.finish(Host().fetch(reading.tensors), scale)


def flow_of(module: nn.Module, run: Callable[[], Tensor]) -> Flow:
    """Return the flow of one backward pass of what `run` returns."""
    probe = armed(module)
    run().backward()
    flow = read(probe)
    assert flow is not None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    return flow


def row(flow: Flow | None, name: str) -> dict[str, Any]:
    """Return what a flow says of one module."""
    assert flow is not None
    assert flow.modules is not None
    i = flow.modules.names.index(name)
    fields = {k: v[i] for k, v in vars(flow.modules).items()}
    return fields | {"active": flow.modules.active_units(i)}


def norm(value: Tensor) -> float:
    return math.sqrt(float(value.detach().to(torch.float64).square().sum()))


def same(a: ModuleFlow, b: ModuleFlow) -> None:
    """Check that two flows hold the same numbers."""
    import numpy as np

    assert (a.names, a.kinds) == (b.names, b.kinds)
    for name in vars(a):
        if isinstance(getattr(a, name), np.ndarray):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-6, err_msg=name)
