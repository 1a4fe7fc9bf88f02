"""Weight changes measured by the compiled reader: the numbers that torch alone gives, or left."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_gradwatch import native
from lightning_gradwatch.probe.one_pass import _ROW
from lightning_gradwatch.probe.updates import EXACT, SKETCH, UpdateMeter

pytestmark = pytest.mark.skipif(
    native.compiled is None, reason="not built here, or this torch is too old for it"
)
TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def measured(
    parameters: list[nn.Parameter], step: Callable[[], None], meter: UpdateMeter, fine=None
) -> np.ndarray:
    """One row of six numbers for each parameter, NaN where there is none; the turns added up."""
    meter.before([(p, i, p.grad) for i, p in enumerate(parameters)])
    step()
    columns, squares = meter.after(fine)
    table = np.full((len(parameters), 6), np.nan)
    if squares is not None:
        table[columns] = squares.numpy().T
        table[:, 3:] = squares.numpy()[3:].sum(axis=1)
    return table


def agree(
    make: Callable[[], tuple[list[nn.Parameter], list[Callable[[], None]]]], numbers: int = 6
) -> None:
    """Measure the same steps with the reader and without it."""
    tables = []
    for compiled in (native.compiled, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "compiled", compiled)
            parameters, steps = make()
            meter = UpdateMeter()
            tables.append([measured(parameters, step, meter) for step in steps])
    for ours, torchs in zip(*tables, strict=True):
        np.testing.assert_allclose(ours[:, :numbers], torchs[:, :numbers], rtol=1e-6, atol=1e-300)


def strange_layout(values: torch.Tensor, kind: str) -> torch.Tensor:
    if kind == "transposed" and values.dim() > 1:
        return values.transpose(0, -1).contiguous().transpose(0, -1)
    if kind == "gaps":
        return torch.stack([values, values], -1)[..., 0]
    if kind == "expanded" and values.dim() and values.shape[0]:
        return values[:1].expand(values.shape)
    return values


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_the_same_numbers_as_with_torch_alone(data):
    count = data.draw(st.integers(1, 5))
    shapes = [
        data.draw(
            st.one_of(
                st.lists(st.integers(0, 4), max_size=4).map(tuple),
                st.sampled_from([(SKETCH,), (SKETCH + 1,), (2048,), (33, 70), (3, 2049)]),
            )
        )
        for _ in range(count)
    ]
    dtypes = [data.draw(st.sampled_from(TYPES)) for _ in range(count)]
    kinds = st.sampled_from(["plain"] * 4 + ["transposed", "gaps", "expanded"])
    layouts = [(data.draw(kinds), data.draw(kinds)) for _ in range(count)]
    scale = data.draw(st.sampled_from([1e-20, 1e-3, 1.0, 1e12]))
    special = data.draw(st.sampled_from([None, None, None, math.nan, math.inf]))
    seed = data.draw(st.integers(0, 1000))

    def make() -> tuple[list[nn.Parameter], list[Callable[[], None]]]:
        torch.manual_seed(seed)
        parameters = []
        for shape, dtype, (own, of_grad) in zip(shapes, dtypes, layouts, strict=True):
            p = nn.Parameter(strange_layout(torch.randn(shape).to(dtype), own))
            grad = (torch.randn(shape) * scale).to(dtype)
            if special is not None:
                grad.view(-1)[:1] = special
            p.grad = strange_layout(grad, of_grad)
            parameters.append(p)

        def step() -> None:
            for p, (own, _) in zip(parameters, layouts, strict=True):
                p.data = strange_layout(p.data + torch.randn(p.shape).to(p.dtype), own)

        return parameters, [step, step]

    agree(make)


def test_a_large_weight_is_measured_in_the_same_places():
    for dtype in TYPES:

        def make(dtype=dtype):
            torch.manual_seed(0)
            p = nn.Parameter(torch.randn(EXACT * 3 + 5).to(dtype))
            p.grad = torch.randn_like(p)
            return [p], [lambda: p.data.add_(torch.randn(p.shape).to(dtype))] * 2

        agree(make)


CHANGES: dict[str, Callable[[nn.Parameter], None]] = {
    "gradient gone": lambda p: setattr(p, "grad", None),
    "gradient replaced": lambda p: setattr(p, "grad", torch.ones_like(p)),
    "gradient sparse": lambda p: setattr(p, "grad", p.grad.to_sparse()),
    "gradient transposed": lambda p: setattr(p, "grad", p.grad.t().contiguous().t()),
    "gradient expanded": lambda p: setattr(p, "grad", torch.ones(1, 1).expand(p.shape)),
    "weight elsewhere": lambda p: setattr(p, "data", p.data + 1),
    "weight transposed": lambda p: setattr(p, "data", (p.data + 1).t().contiguous().t()),
    "weight in double": lambda p: (
        setattr(p, "grad", None), setattr(p, "data", p.data.double() + 0.5)
    ),
    "weight NaN": lambda p: p.data[0].fill_(math.nan),
    "weight emptied": lambda p: (setattr(p, "grad", None), setattr(p, "data", torch.empty(0))),
    "weight larger": lambda p: (setattr(p, "grad", None), setattr(p, "data", torch.ones(90, 90))),
}  # fmt: skip


@pytest.mark.parametrize("shape", [(4, 3), (40, 50)])
@pytest.mark.parametrize("change", list(CHANGES))
def test_what_a_step_may_do_to_a_weight(change, shape):
    def make():
        torch.manual_seed(0)
        parameters = [nn.Parameter(torch.randn(shape)) for _ in range(3)]
        for p in parameters:
            p.grad = torch.randn(shape)

        def plainly() -> None:
            for p in parameters:
                p.data.mul_(0.9)

        def strangely() -> None:
            plainly()
            CHANGES[change](parameters[1])

        def again() -> None:
            for p in parameters:
                p.grad = torch.randn(p.shape, dtype=p.dtype)
            plainly()

        return parameters, [plainly, strangely, again]

    # With torch alone a weight that changes its nature loses the direction it is compared with.
    agree(make, 6 if change.startswith("gradient") else 3)


def test_a_gradient_read_by_torch_is_what_the_next_one_is_compared_with():
    meter = UpdateMeter()
    p = nn.Parameter(torch.zeros(2, 2))
    dense = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    turns = []
    for grad in (dense, 3 * dense.to_sparse(), dense, -dense):
        p.grad = grad
        turns.append(measured([p], lambda: None, meter)[0, 3:].tolist())
    assert turns == [[0, 5, 0], [15, 45, 5], [15, 5, 45], [-5, 5, 5]]
    assert not meter._directions


def test_a_step_that_was_not_made_is_not_compared_with():
    meter = UpdateMeter()
    p = nn.Parameter(torch.zeros(3))
    known = []
    for value, fine in ((1.0, None), (math.inf, torch.tensor(False)), (2.0, torch.tensor(True))):
        p.grad = torch.full((3,), value)
        known.append(measured([p], lambda: None, meter, fine)[0, 5])
    assert known == [0, 3, 3]


def test_directions_are_kept_by_column_when_others_come_and_go():
    meter = UpdateMeter()
    p, q, r = (nn.Parameter(torch.zeros(n)) for n in (3, 2000, 5))
    for some in ([(p, 0)], [(p, 0), (q, 4)], [(r, 1)], [(q, 4)], [(r, 1), (p, 0)]):
        for one, column in some:
            one.grad = torch.full_like(one, column + 1.0)
        meter.before([(one, column, one.grad) for one, column in some])
        columns, squares = meter.after()
        assert columns == [column for _, column in some]
        last = squares[5].tolist()
    assert last == [5 * 4, 3 * 1]
    big = nn.Parameter(torch.zeros(7))
    big.grad = torch.ones(7)
    meter.before([(big, 0, big.grad)])
    assert meter.after()[1][3:, 0].tolist() == [0, 7, 0]


def test_unwatched_and_empty_ones_are_not_measured():
    meter = UpdateMeter()
    ps = [nn.Parameter(torch.ones(n)) for n in (3, 0, 2)]
    for p in ps:
        p.grad = torch.ones_like(p)
    meter.before([(p, column, p.grad) for p, column in zip(ps, (-1, 0, 1), strict=True)])
    assert meter.after()[0] == [1]
    meter.before([(ps[1], 0, ps[1].grad)])
    assert meter.after() == ([], None)


def test_several_threads_each_with_its_own():
    wrong: list[str] = []

    def work(value: float) -> None:
        meter = UpdateMeter()
        ps = [nn.Parameter(torch.full((200_000,), value)) for _ in range(4)]
        for p in ps:
            p.grad = torch.ones_like(p)
        for _ in range(5):
            rows = measured(ps, lambda: [p.data.add_(1) for p in ps], meter)
            if not (rows[:, 1] == 200_000).all():
                wrong.append(str(rows))

    threads = [threading.Thread(target=work, args=(float(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_tables_that_do_not_fit_are_refused():
    reader = native.compiled
    p = nn.Parameter(torch.ones(4))
    columns, rows = np.zeros(1, np.intp), np.zeros(1, _ROW)
    for arguments in (
        ([p], columns, rows, 9, 9), ((p,), columns[:0], rows, 9, 9),
        ((p,), columns, rows[:0], 9, 9),
        ((p,), columns, rows, 0, 9), ((p,), columns, rows, 9, 0), ((p,), columns, rows, 9, 1 << 20),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError, BufferError)):
            reader.copy_weights(*arguments)
    copy, used, left = reader.copy_weights((p,), columns, rows, 9, 9)
    assert (len(copy), used, left) == (16, 1, [])
    rows["start"], known, sums = 0, np.zeros(16, np.uint8), np.zeros((6, 1))
    assert reader.compare_weights((p,), rows, copy, known, sums, True) == []
    assert sums[:, 0].tolist() == [4, 0, 0, 0, 0, 0]
    for name in rows.dtype.names:
        for value in (-1, 1 << 40):
            bad = rows.copy()
            bad[name] = value
            if name in ("column", "room"):
                continue  # for the caller
            try:
                left = reader.compare_weights((p,), bad, copy, known, sums, True)
            except ValueError:
                continue
            assert left == [0] or name == "step", (name, value)
    for arguments in (
        ((), rows, copy, known, sums), ((p,), rows, copy[:8], known, sums),
        ((p,), rows, copy, known[:8], sums), ((p,), rows, copy, known, sums[:5]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="table"):
            reader.compare_weights(*arguments, True)
