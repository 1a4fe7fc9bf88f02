"""Weight norms, changes and descent against float64, small and sampled."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from lightning_gradwatch import native
from lightning_gradwatch.probe import host
from lightning_gradwatch.probe.updates import EXACT, SKETCH, UpdateMeter, assemble


@pytest.fixture(autouse=True, params=["compiled", "host", "device"])
def where(request, monkeypatch):
    """Every way to add up, on the same numbers."""
    if request.param != "compiled":
        monkeypatch.setattr(native, "compiled", None)
    if request.param == "device":
        monkeypatch.setattr(host, "is_at_hand", lambda values: False)


def measure(parameters: list[nn.Parameter], lr: float = 0.1):
    meter = UpdateMeter()
    for p in parameters:
        if p.grad is None:
            p.grad = torch.randn_like(p)
    before = [p.detach().clone() for p in parameters]
    meter.before([(p, i, p.grad) for i, p in enumerate(parameters)])
    torch.optim.SGD(parameters, lr).step()
    columns, squares = meter.after()
    return before, assemble(7, 0, len(parameters), columns, squares.numpy().ravel(), 1.0)


def test_nan_weights_do_not_raise():
    bad = nn.Parameter(torch.tensor([float("nan"), 1.0]))
    _, update = measure([bad, nn.Parameter(torch.ones(3))])
    assert np.isnan(update.weight_norm[0])
    assert update.weight_norm[1] == pytest.approx(3**0.5)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e12])
def test_small_parameters_are_exact(scale):
    parameters = [nn.Parameter(torch.randn(5, 4) * scale), nn.Parameter(torch.randn(7) * scale)]
    for p in parameters:
        p.grad = torch.randn_like(p) * scale
    before, update = measure(parameters)
    for i, (old, p) in enumerate(zip(before, parameters, strict=True)):
        change = p.detach().double() - old.double()
        assert update.weight_norm[i] == pytest.approx(float(old.double().norm()), rel=1e-6)
        assert update.update_norm[i] == pytest.approx(float(change.norm()), rel=1e-6)
        falls = -float((p.grad.double() * change).sum())
        assert update.descent[i] == pytest.approx(falls, rel=1e-6)
    assert update.step == 7


def test_large_parameters_are_sampled_within_one_percent():
    big = nn.Parameter(torch.randn(2048, 1024))
    before, update = measure([big])
    assert update.weight_norm[0] == pytest.approx(float(before[0].norm()), rel=1e-2)
    assert update.update_ratio[0] == pytest.approx(
        float((big - before[0]).norm() / before[0].norm()), rel=1e-2
    )


def test_copy_is_bounded():
    meter = UpdateMeter()
    big = nn.Parameter(torch.zeros(EXACT * 5 + 3))
    big.grad = torch.zeros_like(big)
    meter.before([(big, 0, big.grad)])
    copied = sum(group.before.nbytes for group in meter._groups) + len(meter._one_pass._copy)
    assert 0 < copied <= EXACT * big.itemsize
    meter.forget()
    assert not meter._groups
    assert not meter._one_pass._copy
    assert meter.after() == ([], None)


def test_complex_and_sparse_gradients():
    wave = nn.Parameter(torch.randn(4, dtype=torch.complex64))
    table = nn.Embedding(6, 2, sparse=True)
    table(torch.tensor([1, 1, 3])).sum().backward()
    _, update = measure([wave, table.weight])
    assert np.isfinite(update.descent).all()
    assert update.descent[1] == pytest.approx(0.1 * (4 + 4 + 1 + 1), rel=1e-5)


def test_agreement_is_the_cosine_with_the_measured_gradient_before():
    meter = UpdateMeter()
    p, q = nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(4))
    seen = []
    for scale in (1e-20, 3e-20, -1e-20):
        p.grad, q.grad = torch.randn(3, 2) * scale, torch.ones(4) * scale
        meter.before([(p, 0, p.grad), (q, 1, q.grad)])
        columns, squares = meter.after()
        update = assemble(0, 0, 2, columns, squares.numpy().ravel(), 1.0)
        seen.append((torch.cat([p.grad.flatten(), q.grad]).double(), update.agreement))
    assert np.isnan(seen[0][1])
    for (old, _), (new, agreement) in pairwise(seen):
        expected = float(old @ new / old.norm() / new.norm())
        assert agreement == pytest.approx(expected, rel=1e-6)


def test_agreement_of_nan_and_of_zero_gradients_is_nan():
    meter = UpdateMeter()
    p = nn.Parameter(torch.zeros(3))
    for value in (float("nan"), 0.0, 1.0):
        p.grad = torch.full((3,), value)
        meter.before([(p, 0, p.grad)])
        columns, squares = meter.after()
        assert np.isnan(assemble(0, 0, 1, columns, squares.numpy().ravel(), 1.0).agreement)


def test_the_sketch_of_a_large_gradient_is_bounded():
    meter = UpdateMeter()
    p = nn.Parameter(torch.zeros(100, 4096))
    p.grad = torch.randn(100, 4096)
    meter.before([(p, 0, p.grad)])
    meter.after()
    kept = sum(t.nbytes for t in meter._directions.values()) + len(meter._one_pass._known)
    assert 0 < kept <= SKETCH * 8


@pytest.mark.parametrize("others", [0, 2])
def test_a_weight_of_another_size_has_nothing_to_be_compared_with(others):
    meter = UpdateMeter()
    p, *more = (nn.Parameter(torch.full((3,), 2.0)) for _ in range(1 + others))
    for q in (p, *more):
        q.grad = torch.ones(3)
    meter.before([(q, i, q.grad) for i, q in enumerate((p, *more))])
    p.grad = None
    p.data = torch.ones(5)
    columns, squares = meter.after()
    update = assemble(0, 0, 1 + others, columns, squares.numpy().ravel(), 1.0)
    assert np.isnan(update.weight_norm).tolist() == [True] + [False] * others
    assert np.isnan(update.update_norm).tolist() == [True] + [False] * others
