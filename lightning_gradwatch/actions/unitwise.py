"""Norms and clipping unit by unit: the weights that feed one output, with the gradient they get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_gradwatch.probe.host import Host, widen


@dataclass(frozen=True)
class Clipped:
    """What was clipped.

    Attributes:
        units: How many units.
        largest: Largest gradient norm over weight norm among them, before.
        parameters: Indices of the parameters they belong to.
    """

    units: int
    largest: float
    parameters: tuple[int, ...]


@torch.no_grad()
def excess(
    parameters: Sequence[nn.Parameter], clip_factor: float, eps: float, scale: float = 1.0
) -> tuple[Clipped, list[Tensor]]:
    """Find units whose gradient norm is above `clip_factor` times their weight norm; one transfer.

    Args:
        parameters: All with a gradient.
        clip_factor: λ of the paper.
        eps: Least weight norm that is reckoned with, so that zero weights can move.
        scale: What the gradients are to be divided by.

    Returns:
        What is to be clipped, and for each parameter the factors of its units, fit for
        broadcasting. Units whose gradient is not finite have the factor 1.
    """
    factors, numbers = [], []
    for parameter in parameters:
        grads, weights = _norms(parameter)
        grads = grads / scale
        limits = weights.clamp_min(eps) * clip_factor
        above = (grads > limits) & torch.isfinite(grads)
        factors.append(torch.where(above, limits / grads, 1.0))
        ratio = torch.where(above, grads / limits, 0.0) * clip_factor
        numbers.append(torch.stack([above.sum().to(ratio.dtype), ratio.amax()]))
    fetched = Host().fetch(numbers)
    hit = tuple(i for i, (count, _) in enumerate(fetched) if count > 0)
    units = sum(int(count) for count, _ in fetched)
    return Clipped(units, max((float(r) for _, r in fetched), default=0.0), hit), factors


@torch.no_grad()
def apply_factors(parameter: nn.Parameter, factors: Tensor) -> None:
    """Multiply each unit of a gradient."""
    grad = parameter.grad
    assert grad is not None  # the caller selected parameters that have one
    values = grad._values() if grad.is_sparse else grad
    # The product in the wide type: a factor alone may not fit into float32.
    values.copy_(values.to(torch.promote_types(values.dtype, factors.dtype)) * factors)


def _norms(parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
    """Norms of gradient and weight by unit; of vectors and scalars, the whole is one unit."""
    grad, weight = parameter.grad, parameter.detach()
    assert grad is not None  # see above
    if grad.is_sparse:
        parameter.grad = grad = grad.coalesce()
        # Rows of an embedding: those that have a gradient, each for itself.
        return _by_row(grad._values()), _by_row(weight[grad._indices()[0]])
    if sum(size != 1 for size in weight.shape) <= 1:
        return torch.linalg.vector_norm(_wide(grad)), torch.linalg.vector_norm(_wide(weight))
    return _by_row(grad), _by_row(weight)


def _by_row(values: Tensor) -> Tensor:
    dims = tuple(range(1, values.dim()))
    norms: Tensor = torch.linalg.vector_norm(_wide(values), dim=dims, keepdim=True)
    return norms


def _wide(values: Tensor) -> Tensor:
    plain = values.detach()
    return widen(plain.abs() if plain.is_complex() else plain)
