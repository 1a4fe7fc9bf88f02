"""Clipping that nobody looks at: of every type and magnitude what clipping by hand makes of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn, optim

from lightning_gradwatch.actions import ClipGradNorm, ClipGradValue
from lightning_gradwatch.actions.on_device import MOST, DeviceTraining
from lightning_gradwatch.actions.pending import Ahead, Seen, can_skip
from lightning_gradwatch.probe.wide import wide_norms, wide_total
from lightning_gradwatch.testing import make_sample
from tests.actions.steps import flat64, parameters_with, reference_norm

NAN, INF = float("nan"), float("inf")


def total(parameters: list[nn.Parameter], p: float = 2.0) -> torch.Tensor:
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return wide_total([vector for _, vector in wide_norms(grads, p)], p)


def acted(parameters: list[nn.Parameter], *actions: Any) -> tuple[list[Any], float]:
    """Let actions act, and return what they tell and the norm they say they left."""
    training = DeviceTraining(
        total(parameters), 2.0, optim.SGD(parameters, 0.1), lambda: parameters,
        total=lambda p: total(parameters, p), broken=lambda: torch.tensor(False),
    )  # fmt: skip
    norm = float(training.norm)
    ahead = Ahead([(action, action.on_device(training)) for action in actions])
    assert training.finish() == ()
    seen = Seen(make_sample(3, grad_norm=[norm]), [], lambda reason: None)
    fetched = [tensor.double().reshape(-1).numpy() for tensor in ahead.tensors]
    records, outcome = ahead.settle(seen, fetched)
    return records, outcome.norm


@pytest.mark.parametrize("bad", [NAN, INF])
def test_what_is_not_finite_is_left_bit_for_bit(bad):
    parameters = parameters_with([torch.tensor([1.0, bad, -0.0]), torch.tensor(5.0)])
    before = [p.grad.clone() for p in parameters]
    assert acted(parameters, ClipGradNorm(1e-3))[0] == []
    for p, grad in zip(parameters, before, strict=True):
        assert torch.equal(p.grad.view(torch.int32), grad.view(torch.int32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_norm_is_that_asked_for(dtype):
    parameters = parameters_with(
        [torch.randn(40, 30).to(dtype), torch.tensor(3.0, dtype=dtype), torch.zeros(0, dtype=dtype)]
    )
    [record], norm = acted(parameters, ClipGradNorm(0.7))
    assert norm == record.after == 0.7
    assert (record.action, record.step) == ("ClipGradNorm", 3)
    # A factor rounded to bfloat16 would be off by up to 4e-3.
    assert reference_norm(parameters) == pytest.approx(
        0.7, rel=2e-4 if dtype.itemsize < 4 else 1e-6
    )


def test_below_the_limit_nothing_changes():
    parameters = parameters_with([torch.randn(5), torch.randn(3).bfloat16()])
    before = flat64(parameters)
    records, norm = acted(parameters, ClipGradNorm(1e3), ClipGradValue(1e3))
    assert records == []
    assert norm == pytest.approx(reference_norm(parameters))
    assert torch.equal(flat64(parameters), before)


def test_complex_and_sparse_gradients():
    parameters = parameters_with([torch.tensor([3 + 4j, 0j]), torch.tensor([[1.0], [0.0]])])
    parameters[1].grad = torch.sparse_coo_tensor([[0, 0]], [[6.0], [6.0]], (2, 1)).coalesce()
    acted(parameters, ClipGradNorm(1.3))
    assert reference_norm(parameters) == pytest.approx(1.3)
    [record], _ = acted(parameters, ClipGradValue(0.25))
    assert record.after == 0.25
    assert float(torch.view_as_real(parameters[0].grad).abs().max()) == pytest.approx(0.25)


@pytest.mark.parametrize("norm", [1e-35, 1e30, 1e38])
def test_magnitudes(norm):
    parameters = parameters_with([torch.tensor([norm])])
    [record], _ = acted(parameters, ClipGradNorm(norm / 10))
    assert record.after == norm / 10
    assert reference_norm(parameters) == pytest.approx(norm / 10, rel=1e-6)


def test_beyond_what_a_factor_can_hold_it_says_how_far_it_came():
    parameters = parameters_with([torch.full((4,), 3e38)])
    [record], norm = acted(parameters, ClipGradNorm(1e-3))
    assert norm == record.after == pytest.approx(6e38 / MOST, rel=1e-6)
    assert reference_norm(parameters) == pytest.approx(norm, rel=1e-5)


def test_values_are_limited_as_torch_does_it():
    grads = [torch.randn(50), torch.tensor([INF, -2.0, NAN]), torch.tensor(-7.0)]
    parameters, theirs = parameters_with(grads), parameters_with(grads)
    [record], norm = acted(parameters, ClipGradValue(0.5))
    nn.utils.clip_grad_value_(theirs, 0.5)
    for a, b in zip(parameters, theirs, strict=True):
        assert torch.equal(a.grad.nan_to_num(9.0), b.grad.nan_to_num(9.0))
    assert (record.before, record.after) == (INF, 0.5)
    assert math.isnan(norm)


def test_only_optimizers_that_leave_a_step_out_by_themselves_may_be_left_to_it():
    weight = nn.Parameter(torch.zeros(2))

    class Mine(optim.Adam):
        """Nobody knows what it does."""

    assert can_skip(optim.AdamW([weight], fused=True))
    assert can_skip(optim.SGD([weight], 0.1, fused=True))
    assert not can_skip(None)
    assert not can_skip(optim.AdamW([weight], foreach=True))
    assert not can_skip(optim.RMSprop([weight]))
    assert not can_skip(Mine([weight], fused=True))
    sgd = optim.SGD([weight], 0.1, momentum=0.9, fused=True)
    weight.grad = torch.ones(2)
    assert not can_skip(sgd)  # its momentum would be memory that nobody has written to
    sgd.step()
    assert can_skip(sgd)
