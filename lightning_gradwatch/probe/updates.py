"""What a step did to the weights, measured on sampled steps: norms before, change, descent.

Needs the weights of before. Parameters of up to `EXACT` elements are copied whole, larger ones at
that many evenly spaced places, so that the copy stays small beside one gradient. Small parameters
are copied, and measured, many at a time: on each of them alone the calls would cost far more than
the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors
from torch.nn import functional

from lightning_gradwatch.probe.host import laid_out
from lightning_gradwatch.sample import Floats, Update

EXACT = 262_144

#: Elements of each gradient kept to compare its direction with that of the next measured step.
#: Parameters of at most so many are taken together, up to `EXACT` elements at once.
SKETCH = 1_024


@dataclass
class _Group:
    """Parameters that are measured together: one large one, or many small ones.

    Attributes:
        parameters: The parameters, all of one device and dtype.
        columns: Their columns.
        before: Their values before the step, flat.
    """

    parameters: list[nn.Parameter]
    columns: list[int]
    before: Tensor


class UpdateMeter:
    """Copies weights before a step and compares after it."""

    def __init__(self) -> None:
        self._groups: list[_Group] = []
        self._directions: dict[tuple[int, ...], Tensor] = {}

    def before(self, moving: Sequence[tuple[nn.Parameter, int, Tensor]]) -> None:
        """Copy what the coming step will move: `(parameter, column, gradient)`, watched ones."""
        self._groups = []
        small: dict[tuple[torch.device, torch.dtype], list[tuple[nn.Parameter, int]]] = {}
        for parameter, column, _ in moving:
            if column < 0 or not parameter.numel():
                continue
            if parameter.numel() > SKETCH or parameter.is_complex():
                self._add([(parameter, column)])
                continue
            together = small.setdefault((parameter.device, parameter.dtype), [])
            together.append((parameter, column))
            if len(together) == EXACT // SKETCH:
                self._add(together)
                together.clear()
        for together in small.values():
            self._add(together)

    def _add(self, members: Sequence[tuple[nn.Parameter, int]]) -> None:
        if members:
            parameters = [parameter for parameter, _ in members]
            columns = [column for _, column in members]
            self._groups.append(_Group(parameters, columns, _values(parameters).clone()))

    def forget(self) -> None:
        """Drop the copies: the step was not made."""
        self._groups = []

    def after(self, fine: Tensor | None = None) -> tuple[list[int], Tensor | None]:
        """Measure the change; return columns, and squares of shape (6, n) still on the device.

        Args:
            fine: Whether the step was made after all, on the device, shape (): if not, its gradient
                is not what the next one is compared with. None: it was.

        The rows are: squared weight norm, squared change norm, minus gradient times change; and of
        the sketches of this gradient and the one measured before: product, square, square, summed
        in the column of a group's first parameter.
        """
        columns = [column for group in self._groups for column in group.columns]
        rows = [self._measure(group, fine) for group in self._groups]
        self._groups = []
        if not rows:
            return columns, None
        return columns, torch.cat([row.to(rows[0].device) for row in rows], dim=1)

    def _measure(self, group: _Group, fine: Tensor | None) -> Tensor:
        # float64: changes of 1e-25 have squares that float32 does not know.
        before = _wide(group.before)
        change = _wide(_values(group.parameters)).sub_(before)
        gradient = _gradient(group.parameters)
        if gradient is None:
            gradient = torch.zeros_like(before)
        turn = torch.stack(self._turn(tuple(group.columns), gradient, fine))
        if len(group.parameters) == 1:
            one = group.parameters[0]
            share = one.numel() * (2 if one.is_complex() else 1) / before.numel()
            whole = (before.dot(before), change.dot(change), -gradient.dot(change))
            return torch.cat([torch.stack(whole), turn]).mul_(share)[:, None]
        sizes = laid_out([p.numel() for p in group.parameters], torch.int64, before.device)
        products = (before.square_(), change.square(), gradient.mul_(change).neg_())
        sums = [torch.segment_reduce(p, "sum", lengths=sizes, unsafe=True) for p in products]
        first = functional.pad(turn.reshape(3, 1), (0, len(group.parameters) - 1))
        return torch.cat([torch.stack(sums), first])

    def _turn(
        self, columns: tuple[int, ...], gradient: Tensor, fine: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compare a gradient with the one before, and keep it for the next."""
        known = self._directions.get(columns)
        stride = -(-gradient.numel() // SKETCH) if len(columns) == 1 else 1
        flat = gradient if stride <= 1 else gradient[:: stride | 1]
        if known is None or known.shape != flat.shape or known.device != flat.device:
            known = torch.zeros_like(flat)
        flat = flat.clone()
        self._directions[columns] = (
            flat if fine is None else torch.where(fine.to(flat.device), flat, known)
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


def _values(parameters: Sequence[Tensor]) -> Tensor:
    """Return the measured elements as one real dimension: a view of one, a copy of several."""
    if len(parameters) == 1:
        return _places(parameters[0])
    flat: Tensor = _flatten_dense_tensors([parameter.detach() for parameter in parameters])
    return flat


def _gradient(parameters: Sequence[nn.Parameter]) -> Tensor | None:
    """Return the gradients at the same places, as float64; zeros for those that have none."""
    grads = [parameter.grad for parameter in parameters]
    if all(grad is None for grad in grads):
        return None
    dense = [
        torch.zeros_like(parameter) if grad is None else _dense(grad)
        for parameter, grad in zip(parameters, grads, strict=True)
    ]
    return _wide(_values(dense))


def _dense(grad: Tensor) -> Tensor:
    return grad.detach() if grad.layout == torch.strided else grad.detach().to_dense()


def _wide(values: Tensor) -> Tensor:
    """Return a copy as float64, on the host if the device has none."""
    if values.device.type == "mps":
        values = values.cpu()
    return values.to(torch.float64, copy=True)


def _places(tensor: Tensor) -> Tensor:
    """View the measured elements of a parameter as one real dimension."""
    values = tensor.detach()
    if values.is_complex():
        values = torch.view_as_real(values)
    flat = values.reshape(-1)
    stride = -(-flat.numel() // EXACT)
    # An odd stride does not fall on the same column of every row.
    return flat if stride <= 1 else flat[:: stride | 1]
