"""What a step did to the weights, measured on sampled steps: norms before, change, descent.

Needs the weights of before. Parameters of up to `EXACT` elements are copied whole, larger ones at
that many evenly spaced places, so that the copy stays small beside one gradient. Small parameters
are copied, and measured, many at a time: on each of them alone the calls would cost far more than
the numbers. Where the compiled reader is there, it does all that it can reach in two calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors

from lightning_gradwatch.probe import host
from lightning_gradwatch.probe.gathered import Gradients, Held
from lightning_gradwatch.probe.one_pass import Left, OnePass
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
        sizes: How many elements each one had before the step.
        before: Their values before the step, flat.
    """

    parameters: list[nn.Parameter]
    columns: list[int]
    sizes: list[int]
    before: Tensor


class UpdateMeter:
    """Copies weights before a step and compares after it."""

    def __init__(self) -> None:
        self._one_pass = OnePass(EXACT, SKETCH)
        self._groups: list[_Group] = []
        self._directions: dict[tuple[int, ...], Tensor] = {}

    def before(self, moving: Gradients | Sequence[tuple[nn.Parameter, int, Tensor]]) -> None:
        """Copy what the coming step will move: `(parameter, column, gradient)`, watched ones."""
        self.forget()
        if not moving:
            return
        held = moving.held if isinstance(moving, Gradients) else Held.of([m[:2] for m in moving])
        left: Sequence[int] = range(len(held.parameters))
        if host.is_at_hand(held.parameters[0].detach()):
            left = self._one_pass.copy(held)
        if left:
            self._group([(held.parameters[i], int(held.columns[i])) for i in left])

    def _group(self, pairs: Sequence[tuple[nn.Parameter, int]]) -> None:
        small: dict[tuple[torch.device, torch.dtype], list[tuple[nn.Parameter, int]]] = {}
        for parameter, column in pairs:
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
            sizes = [parameter.numel() for parameter in parameters]
            self._groups.append(_Group(parameters, columns, sizes, _values(parameters).clone()))

    def forget(self) -> None:
        """Drop the copies: the step was not made."""
        self._one_pass.forget()
        self._groups = []

    def after(self, fine: Tensor | None = None) -> tuple[list[int], Tensor | None]:
        """Measure the change; return columns, and squares of shape (6, n) still on the device.

        Args:
            fine: Whether the step was made after all, on the device, shape (): if not, its gradient
                is not what the next one is compared with. None: it was.

        The rows are: squared weight norm, squared change norm, minus gradient times change; and of
        the sketches of this gradient and the one measured before: product, square, square, of
        parameters measured together in the column of the first.
        """
        columns = [column for group in self._groups for column in group.columns]
        rows = [self._measure(group, fine) for group in self._groups]
        if self._one_pass:
            those, sums, left = self._one_pass.compare(fine is None or bool(fine))
            for one in left:
                sums[:, one.place] = self._measure_left(one, fine)
            columns += those
            rows.append(torch.from_numpy(sums))
        self._groups = []
        if len(rows) == 1:
            return columns, rows[0]
        return columns, torch.cat([row.to(rows[0].device) for row in rows], dim=1) if rows else None

    def _measure_left(self, left: Left, fine: Tensor | None) -> Floats:
        """Measure what the one pass has left; its direction goes back to where that keeps it."""
        key = (left.column,)
        self._directions[key] = left.known.to(torch.float64)
        group = _Group([left.parameter], [left.column], [left.numel], left.before)
        sums: Floats = self._measure(group, fine).numpy()[:, 0]
        left.known.copy_(self._directions.pop(key))
        return sums

    def _measure(self, group: _Group, fine: Tensor | None) -> Tensor:
        sizes = [parameter.numel() for parameter in group.parameters]
        if sizes != group.sizes:
            return self._measure_resized(group, fine)
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
            own = (before.dot(before), change.dot(change), -gradient.dot(change))
            return torch.cat([torch.stack(own), turn]).mul_(share).unsqueeze(1)
        products = (before.square_(), change.square(), gradient.mul_(change).neg_())
        sums = torch.stack([_sums(product, sizes) for product in products])
        others = turn.new_zeros(3, len(sizes) - 1)
        return torch.cat([sums, torch.cat([turn.unsqueeze(1), others], dim=1)])

    def _measure_resized(self, group: _Group, fine: Tensor | None) -> Tensor:
        """Measure each one alone; one of another size than before has nothing to be compared."""
        if len(group.sizes) == 1:
            nothing = _wide(group.before.new_full((6, 1), float("nan")))
            nothing[3:] = 0.0
            return nothing
        members = zip(
            group.parameters, group.columns, group.sizes, group.before.split(group.sizes),
            strict=True,
        )  # fmt: skip
        alone = [_Group([one], [column], [size], old) for one, column, size, old in members]
        return torch.cat([self._measure(group, fine) for group in alone], dim=1)

    def _turn(
        self, columns: tuple[int, ...], gradient: Tensor, fine: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compare a gradient with the one before, and keep it for the next."""
        known = self._directions.get(columns)
        stride = -(-gradient.numel() // SKETCH) if len(columns) == 1 else 1
        flat = gradient if stride <= 1 else gradient[:: stride | 1]
        if known is None or known.shape != flat.shape or known.device != flat.device:
            known = torch.zeros_like(flat)
        self._directions[columns] = (
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


def _sums(values: Tensor, sizes: list[int]) -> Tensor:
    """Return the sums of segments of these sizes."""
    if host.is_at_hand(values):
        return torch.segment_reduce(values, "sum", lengths=torch.tensor(sizes), unsafe=True)
    # That the sizes are known to the host only is no matter here: nothing is sent to the device.
    parts = [torch._foreach_norm(v.relu().split(sizes), 1) for v in (values, -values)]
    return torch.stack(parts[0]) - torch.stack(parts[1])


def _places(tensor: Tensor) -> Tensor:
    """View the measured elements of a parameter as one real dimension."""
    values = tensor.detach()
    if values.is_complex():
        values = torch.view_as_real(values)
    flat = values.reshape(-1)
    stride = -(-flat.numel() // EXACT)
    # An odd stride does not fall on the same column of every row.
    return flat if stride <= 1 else flat[:: stride | 1]
