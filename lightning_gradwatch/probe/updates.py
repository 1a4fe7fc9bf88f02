"""What a step did to the weights, measured on sampled steps: norms before, change, descent.

Needs the weights of before. Parameters of up to `EXACT` elements are copied whole, larger ones at
that many evenly spaced places, so that the copy stays small beside one gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lightning_gradwatch.sample import Floats, Update

EXACT = 262_144

#: Elements of each gradient kept to compare its direction with that of the next measured step.
SKETCH = 1_024


class UpdateMeter:
    """Copies weights before a step and compares after it."""

    def __init__(self) -> None:
        self._before: list[tuple[nn.Parameter, int, Tensor]] = []
        self._directions: dict[int, Tensor] = {}

    def before(self, moving: Sequence[tuple[nn.Parameter, int, Tensor]]) -> None:
        """Copy what the coming step will move: `(parameter, column, gradient)`, watched ones."""
        self._before = [
            (parameter, column, _places(parameter).clone())
            for parameter, column, _ in moving
            if column >= 0 and parameter.numel()
        ]

    def forget(self) -> None:
        """Drop the copies: the step was not made."""
        self._before = []

    def after(self, fine: Tensor | None = None) -> tuple[list[int], Tensor | None]:
        """Measure the change; return columns, and squares of shape (6, n) still on the device.

        Args:
            fine: Whether the step was made after all, on the device, shape (): if not, its gradient
                is not what the next one is compared with. None: it was.

        The rows are: squared weight norm, squared change norm, minus gradient times change; and of
        the sketches of this gradient and the one measured before: product, square, square.
        """
        columns: list[int] = []
        rows: list[Tensor] = []
        for parameter, column, old in self._before:
            # float64: changes of 1e-25 have squares that float32 does not know.
            before = old.to(torch.float64)
            change = _places(parameter).to(torch.float64) - before
            gradient = _gradient_places(parameter)
            falls = -torch.dot(gradient, change) if gradient is not None else before.new_zeros(())
            share = parameter.numel() * (2 if parameter.is_complex() else 1) / before.numel()
            squares = torch.stack(
                [
                    before.dot(before),
                    change.dot(change),
                    falls,
                    *self._turn(column, gradient, before.device, fine),
                ]
            ).mul_(share)
            rows.append(squares.cpu() if parameter.device.type == "mps" else squares)
            columns.append(column)
        self._before = []
        if not rows:
            return columns, None
        return columns, torch.stack([row.to(rows[0].device) for row in rows], dim=1)

    def _turn(
        self, column: int, gradient: Tensor | None, device: torch.device, fine: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compare a gradient with the one before, and keep it for the next."""
        known = self._directions.pop(column, None)
        if gradient is None:
            zero = torch.zeros((), dtype=torch.float64, device=device)
            return zero, zero, zero
        stride = -(-gradient.numel() // SKETCH)
        flat = gradient if stride <= 1 else gradient[:: stride | 1]
        if known is None or known.shape != flat.shape or known.device != flat.device:
            known = torch.zeros_like(flat)
        self._directions[column] = (
            flat.clone() if fine is None else torch.where(fine.to(flat.device), flat, known)
        )
        return flat.dot(known), flat.dot(flat), known.dot(known)


def assemble(
    step: int, optimizer: int, width: int, columns: list[int], squares: Floats, factor: float
) -> Update:
    """Build the `Update` from fetched numbers.

    Args:
        step: Step that was made.
        optimizer: Index of the optimizer that made it.
        width: Number of parameters in the layout.
        columns: Columns measured.
        squares: What `UpdateMeter.after` returned, fetched, flat.
        factor: Gradient norm before clipping over after it: descent is wanted before clipping.
    """
    weight, moved, descent = (np.full(width, np.nan) for _ in range(3))
    table = squares.reshape(6, -1)
    weight[columns], moved[columns] = np.sqrt(table[0]), np.sqrt(table[1])
    descent[columns] = table[2] * factor
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        turn = float(table[3].sum() / np.sqrt(table[4].sum()) / np.sqrt(table[5].sum()))
    return Update(step, optimizer, weight, moved, descent, turn)


def _places(parameter: Tensor) -> Tensor:
    """View the measured elements of a parameter as one real dimension."""
    values = parameter.detach()
    if values.is_complex():
        values = torch.view_as_real(values)
    flat = values.reshape(-1)
    stride = -(-flat.numel() // EXACT)
    # An odd stride does not fall on the same column of every row.
    return flat if stride <= 1 else flat[:: stride | 1]


def _gradient_places(parameter: nn.Parameter) -> Tensor | None:
    grad = parameter.grad
    if grad is None:
        return None
    if grad.layout != torch.strided:
        grad = grad.detach().to_dense()
    return _places(grad).to(torch.float64)
