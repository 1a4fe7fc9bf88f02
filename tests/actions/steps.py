"""Optimizer steps without a Trainer: parameters with given gradients, and a handle on the step."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradwatch.actions import Training
from lightning_gradwatch.actions.snapshot import Trained
from lightning_gradwatch.culprit.batches import Kept
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.testing import make_sample


def parameters_with(grads: Sequence[Tensor]) -> list[nn.Parameter]:
    """Parameters that carry exactly these gradients."""
    parameters = []
    for grad in grads:
        shape = grad.shape
        p = nn.Parameter(torch.ones(shape, dtype=grad.dtype))
        p.grad = grad.clone()
        parameters.append(p)
    return parameters


def flat64(parameters: Iterable[nn.Parameter]) -> Tensor:
    """All gradient elements in one float64 vector; complex ones by their absolute value."""
    parts = [torch.zeros(0, dtype=torch.float64)]
    for p in parameters:
        if p.grad is not None:
            grad = p.grad.detach()
            grad = grad.to_dense() if grad.is_sparse else grad
            grad = grad.to(torch.complex128).abs() if grad.is_complex() else grad
            parts.append(grad.double().reshape(-1))
    return torch.cat(parts)


def reference_norm(parameters: Iterable[nn.Parameter], p: float = 2.0) -> float:
    """The norm in float64, scaled by the largest element: nothing of the package is used here."""
    x = flat64(parameters).abs()
    if not x.numel():
        return math.nan
    top = float(x.max())
    if top == 0 or not math.isfinite(top) or math.isinf(p):
        return top
    return top * float(((x / top) ** p).sum()) ** (1 / p)


class Ranks:
    """Stands for the other ranks: counts the collectives, and answers as they would vote."""

    def __init__(self, others: bool = False) -> None:
        self.others = others
        self.calls = 0

    def __call__(self, decision: bool) -> bool:
        self.calls += 1
        return decision or self.others


def training_for(
    optimizer: torch.optim.Optimizer | None,
    *,
    parameters: Sequence[nn.Parameter] | None = None,
    schedulers: Sequence[object] = (),
    scaler: Any = None,
    stopped: list[str] | None = None,
    ranks: Ranks | None = None,
    norm: float | None = None,
    index: int = 0,
    batches: Sequence[Kept] = (),
    **sample: Any,
) -> Training:
    """Build the handle as the engine does, with the true norm of the gradients in the sample."""
    if parameters is None:
        assert optimizer is not None
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moved = [(f"layer{i}.weight", p) for i, p in enumerate(parameters)]
    if norm is None:
        norm = reference_norm(parameters, sample.get("norm_type", 2.0))
    return Training(
        make_sample(grad_norm=[norm], optimizer=index, **sample),
        optimizer,
        lambda: [(name, p) for name, p in moved if p.grad is not None],
        schedulers=lambda: schedulers,
        scaler=scaler,
        stop=stopped.append if stopped is not None else lambda reason: None,
        agree=ranks or bool,
        batches=lambda: batches or [Kept.of(torch.ones(2), 0)],
        trained=Trained(nn.ParameterList(parameters), [] if optimizer is None else [optimizer]),
    )


def through_checkpoint(state: Any) -> Any:
    """Save and load a state as Lightning does, which takes plain types and tensors only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal, tensors bit for bit."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b or (a != a and b != b))


def finding(code: str, step: int = 0, **fields: Any) -> Finding:
    return Finding(code, Severity.ERROR, ("layer0",), step, step, **fields)


EXPLODING = [finding("exploding", evidence={"norm": 812.0})]
NONFINITE = [finding("nonfinite", summary="NaN in the gradient of layer0")]
