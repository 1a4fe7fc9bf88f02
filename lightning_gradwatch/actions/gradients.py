"""Changes gradients in place: many at once, of any dtype, layout and magnitude."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from operator import attrgetter

import torch
from torch import Tensor, nn

from lightning_gradwatch.layers import combine_norms
from lightning_gradwatch.probe.host import Host
from lightning_gradwatch.probe.in_place import scale_in_place
from lightning_gradwatch.probe.norms import NormReader

#: float32 cannot hold a factor below its own range, though it may hold the product.
_SMALLEST_FACTOR = 1e-30
_KIND = attrgetter("device", "dtype")
_HALF = (torch.float16, torch.bfloat16)


@torch.no_grad()
def multiply(parameters: Sequence[nn.Parameter], factor: float) -> None:
    """Multiply every gradient by `factor` > 0, which may lie outside the range of float32."""
    factors = []
    while factor < _SMALLEST_FACTOR:
        factors.append(_SMALLEST_FACTOR)
        factor /= _SMALLEST_FACTOR
    factors.append(factor)
    tensors = [_numbers(p) for p in parameters]
    for part in factors:
        for group in _alike([tensors[i] for i in scale_in_place(tensors, part)]):
            # On the CPU a foreach kernel rounds the factor itself to half: 2e-3 off for bfloat16.
            if group[0].device.type == "cpu" and group[0].dtype in _HALF:
                for tensor in group:
                    tensor.mul_(part)
            else:
                torch._foreach_mul_(group, part)


@torch.no_grad()
def multiply_by(parameters: Sequence[nn.Parameter], factor: Tensor) -> None:
    """Multiply every gradient by a factor that is on a device, shape (), within float32's range.

    Rounded once to the type that the product is taken in, which is float32 for half types: a
    factor that is rounded to bfloat16 itself is off by up to 2e-3.
    """
    for group in _alike([_numbers(p) for p in parameters]):
        dtype = group[0].dtype
        there = factor.to(group[0].device)
        if dtype in _HALF:
            # One dimension makes the factor count in the type of the product; none would not.
            wide = there.to(torch.float32).reshape(1)
            for tensor in group:
                (tensor if tensor.dim() else tensor.unsqueeze(0)).mul_(wide)
        else:
            torch._foreach_mul_(group, there.to(group[0].real.dtype if dtype.is_complex else dtype))


@torch.no_grad()
def clamp(parameters: Sequence[nn.Parameter], value: float) -> None:
    """Limit every element to [-value, value]; of complex ones the real and imaginary parts."""
    for group in _alike([_real(_unique(p)) for p in parameters]):
        torch._foreach_clamp_min_(group, -value)
        torch._foreach_clamp_max_(group, value)


@torch.no_grad()
def largest(parameters: Sequence[nn.Parameter]) -> list[float]:
    """Return the largest absolute element of each gradient, apart from NaN.

    Real and imaginary parts of a complex gradient count as elements. An empty gradient has 0.
    One transfer, and a second one for gradients that hold NaN.
    """
    numbers = [_real(_unique(p)) for p in parameters]
    out = [0.0] * len(numbers)
    todo = [i for i, values in enumerate(numbers) if values.numel()]
    for _ in range(2):
        # On the CPU aminmax is 25 times as fast as the maximum norm.
        ends = [torch.stack(torch.aminmax(numbers[i])) for i in todo]
        for i, (low, high) in zip(todo, Host().fetch(ends), strict=True):
            out[i] = float(max(-low, high))
        todo = [i for i in todo if math.isnan(out[i])]
        for i in todo:
            numbers[i] = numbers[i].nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf)
    return out


@torch.no_grad()
def largest_on_device(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the largest absolute element of all gradients, apart from NaN, left on the device.

    Shape (); 0 without elements. Copies one gradient at a time.
    """
    tops = []
    for parameter in parameters:
        values = _real(_unique(parameter))
        if values.numel():
            known = values.nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf)
            low, high = torch.aminmax(known)
            tops.append(torch.maximum(-low, high).to(torch.float64))
    if not tops:
        return torch.zeros((), dtype=torch.float64, device=parameters[0].device)
    return torch.stack([top.to(tops[0].device) for top in tops]).amax()


def norm_of(parameters: Sequence[nn.Parameter], norm_type: float) -> float:
    """Return the p-norm over all gradients; NaN without any."""
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return math.nan
    norms, _ = NormReader(Host(), norm_type).read(grads, range(len(grads)))
    return combine_norms(norms, norm_type)


def _numbers(parameter: nn.Parameter) -> Tensor:
    """Return the tensor that holds a gradient's numbers, for operations that are linear."""
    grad = parameter.grad
    assert grad is not None  # the caller selected parameters that have one
    if type(grad) is Tensor and grad.layout is torch.strided:
        return grad  # nearly always, and then nothing else is worth its time
    grad = grad.detach()
    if grad.is_sparse:
        return grad._values()
    return grad.to_local() if hasattr(grad, "to_local") else grad


def _unique(parameter: nn.Parameter) -> Tensor:
    """The same with repeated entries of a sparse gradient summed, for what is not linear."""
    if parameter.grad is not None and parameter.grad.is_sparse:
        parameter.grad = parameter.grad.coalesce()
    return _numbers(parameter)


def _real(values: Tensor) -> Tensor:
    return torch.view_as_real(values) if values.is_complex() else values


def _alike(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Group tensors as the foreach kernels want them: by device and dtype."""
    kinds = list(map(_KIND, tensors))
    for kind in dict.fromkeys(kinds):
        yield [tensor for tensor, own in zip(tensors, kinds, strict=True) if own == kind]
