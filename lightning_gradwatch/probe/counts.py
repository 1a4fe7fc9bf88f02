"""Counts what activations did: zeros, saturation, units that are off; on the host or on a device.

On the host one call of the compiled reader does all of it where it can. Without it torch and NumPy
count the same, and so they do, without a look at any number, on a device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from lightning_gradwatch.probe import host
from lightning_gradwatch.probe.activations import FLAT, RELU, Activation
from lightning_gradwatch.probe.graph import is_plain
from lightning_gradwatch.probe.in_place import count_in_place

#: A hair below the limit, so that outputs clipped to it count.
_HAIR = 1 - 1e-6

#: Units of a layer whose activity is passed on one by one; of larger ones only the count is.
MAX_UNITS = 4096

#: A number that is at hand, or waits on a device.
Number = Tensor | float


class Counts:
    """Counts of one output; None: not counted.

    Attributes:
        total: Elements, or those of which anything can be claimed.
        squares: Squared norm.
        nonzero: How many are not zero (NaN is not).
        nonfinite: How many are NaN or Inf.
        saturated: How many lie on a flat part of a bounded activation.
        vectors: Of how many vectors it consists.
        active: Whether each unit was active for any sample, shape (units,).
        input: Squared norm of the input, if data enters here.
        input_total: Elements of that.
    """

    __slots__ = (
        "active", "input", "input_total", "nonfinite", "nonzero", "saturated", "squares", "total",
        "vectors",
    )  # fmt: skip

    total: Number | None
    squares: Number | None
    nonzero: Number | None
    nonfinite: Number | None
    saturated: Number | None
    vectors: float | None
    active: Tensor | npt.NDArray[np.bool_] | None
    input: Number | None
    input_total: float | None

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew."""
        self.total = self.squares = self.nonzero = self.nonfinite = self.saturated = None
        self.vectors = self.active = self.input = self.input_total = None

    def measure_input(self, args: tuple[Any, ...]) -> None:
        """Add the squared norm of the first tensor among the arguments, if it is one of floats."""
        for data in args:
            if isinstance(data, Tensor):
                break
        else:
            return
        if data.is_floating_point() and data.layout == torch.strided and is_plain(data):
            counted = count_in_place(data, None, 0, 1.0) if host.is_at_hand(data) else None
            self.input = _square(data) if counted is None else counted[0]
            self.input_total = float(data.numel())

    def look_at(self, values: Tensor, activation: Activation | None, unit_dim: int) -> None:
        """Count zero, non-finite and saturated elements, and say which units were active.

        Args:
            values: Output of a module or function.
            activation: How to read it; None: no activation.
            unit_dim: Dimension of its units, counted from the end.
        """
        if values.is_complex() or values.layout != torch.strided:
            return
        ndim = values.dim()
        by_unit = activation is not None and activation.dies and not activation.by_gradient
        dim = unit_dim if by_unit and ndim > 1 else 0
        self.total = float(values.numel())
        if values.is_floating_point():
            self.vectors = self.total / max(values.shape[unit_dim] if ndim else 1, 1)
            if host.is_at_hand(values):
                counted = count_in_place(values, activation, dim, _HAIR)
                if counted is not None:
                    self.squares, nonzero, beyond, active = counted
                    self.nonzero, self.nonfinite = float(nonzero), 0.0
                    if active is not None:
                        self.active = np.frombuffer(active, np.bool_)
                    if activation is not None and activation.limit < math.inf:
                        self.saturated = float(beyond)
                    return
        with torch.no_grad():
            values = values.detach()
            if values.is_floating_point():
                self.squares = _square(values)
            if host.is_at_hand(values):
                self._count_here(values, activation, dim)
            else:
                self._count_there(values, activation, dim)

    def _count_here(self, values: Tensor, activation: Activation | None, unit_dim: int) -> None:
        """Count on the host, in a third of the time, as flags of one byte and with shortcuts."""
        finite = not isinstance(self.squares, float) or math.isfinite(self.squares)
        broken = 0.0 if finite else values.numel() - float(torch.isfinite(values).sum())
        self.nonfinite = broken
        on = values.bool()  # NaN is
        if unit_dim:
            by_row: npt.NDArray[np.bool_] = _rows(on, unit_dim).numpy()
            self.active = np.logical_or.reduce(by_row, axis=0)
        self.nonzero = float(np.count_nonzero(on.numpy()))
        if activation is not None and activation.saturates:
            size = (values - activation.center if activation.center else values).abs()
            beyond = size.float().numpy() > activation.limit * _HAIR  # of NaN it is false
            self.saturated = float(np.count_nonzero(beyond))

    def _count_there(self, values: Tensor, activation: Activation | None, unit_dim: int) -> None:
        """Count on a device without a look at any number: with arithmetic, no copy to the host."""
        broken = torch.nan_to_num(values - values, nan=1.0)  # Inf - Inf is NaN, as is NaN - NaN
        self.nonfinite = broken.sum(dtype=torch.float32)
        on = torch.nan_to_num(values.abs(), nan=1.0).sign_()
        if unit_dim:
            by_unit = _rows(on, unit_dim).sum(dim=0, dtype=torch.float32)
            self.active = by_unit > 0
            self.nonzero = by_unit.sum()
        else:
            self.nonzero = on.sum(dtype=torch.float32)
        if activation is not None and activation.saturates:
            distance = values - activation.center if activation.center else values
            beyond = distance.abs().sub_(activation.limit * _HAIR).nan_to_num_(nan=-1.0).sign_()
            self.saturated = (beyond.sum(dtype=torch.float32) + values.numel()) / 2

    def look_at_gradients(
        self, grad_out: Tensor, grad_in: Tensor, activation: Activation, unit_dim: int
    ) -> None:
        """Count the same from the gradients that leave and enter an elementwise function.

        Args:
            grad_out: Gradient at its output.
            grad_in: Gradient at its input.
            activation: Which function it is.
            unit_dim: Dimension of its units, counted from the end.
        """
        if grad_out.shape != grad_in.shape or grad_out.is_complex() or grad_out.is_sparse:
            self.active = None
            return
        cut = FLAT * activation.peak
        size = grad_out.abs().to(torch.promote_types(grad_out.dtype, torch.float32))
        known = (size >= torch.finfo(grad_out.dtype).tiny / cut) & (size < math.inf)
        flat = known & (grad_in.abs() < cut * size)
        if activation is RELU:
            self.total = known.sum(dtype=torch.float32)
            self.nonzero = self.total - flat.sum(dtype=torch.float32)
        elif activation.saturates and not activation.dies:
            self.total = known.sum(dtype=torch.float32)
            self.saturated = flat.sum(dtype=torch.float32)
        self.active = None
        if activation.dies and size.dim() > 1:
            steep = _rows(known & ~flat, unit_dim).any(dim=0)
            self.active = steep | ~_rows(known, unit_dim).any(dim=0)


def _square(values: Tensor) -> Number:
    """Return the squared norm."""
    wide = torch.promote_types(values.dtype, torch.float32)
    norm: Number = torch.linalg.vector_norm(values.detach(), dtype=wide)
    norm = float(norm) if host.is_at_hand(values) else norm
    return norm * norm


def _rows(values: Tensor, unit_dim: int) -> Tensor:
    return values.movedim(unit_dim, -1).reshape(-1, values.shape[unit_dim])


def pack(masks: Sequence[Tensor]) -> Tensor:
    """Pack flags into numbers of 16 bits each, which every float dtype of 32 bits holds exactly.

    Args:
        masks: Flags of one device, shape (units,) each.

    Returns:
        One number for every 16 flags, each mask filled up to a whole number of them.
    """
    padded = [functional.pad(mask, (0, -mask.numel() % 16)) for mask in masks]
    bits = torch.cat(padded).view(-1, 16).to(torch.float32)
    return (bits * torch.pow(2.0, torch.arange(16, device=bits.device))).sum(dim=1)
