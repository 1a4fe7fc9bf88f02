"""The handle: what it does to gradients, against float64 and against torch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_gradwatch.actions import gradients as change
from tests.actions.steps import (
    flat64,
    parameters_with,
    reference_norm,
    training_for,
)

pytestmark = pytest.mark.usefixtures("each_reader")

MAGNITUDES = st.integers(-30, 30).map(lambda exponent: 10.0**exponent)


def sgd(parameters: list[nn.Parameter]) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=0.1)


def sparse_grad(scale: float = 1.0) -> torch.Tensor:
    """Row 1 twice, so that uncoalesced values give a wrong norm."""
    values = torch.tensor([[3.0, -1.0], [2.0, 4.0], [0.5, 0.5]]) * scale
    return torch.sparse_coo_tensor(torch.tensor([[1, 1, 3]]), values, (5, 2), check_invariants=True)


def odd_gradients() -> list[torch.Tensor]:
    return [
        torch.randn(7, 3),
        torch.randn(4).double(),
        torch.randn(6, dtype=torch.complex64),
        torch.randn(33).half(),
        torch.randn(33).bfloat16(),
        torch.zeros(0, 4),
        sparse_grad(),
        torch.randn(()),
    ]


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_clipping_by_norm_leaves_nonfinite_gradients_alone(poison: float) -> None:
    parameters = parameters_with([torch.tensor([poison, 5.0]), torch.tensor([7.0])])
    training = training_for(sgd(parameters))
    assert training.clip_grad_norm(1.0) is None
    assert training.clip_grad_norm(1.0, math.inf) is None
    assert not training.touched
    assert torch.equal(parameters[1].grad, torch.tensor([7.0]))
    assert torch.equal(parameters[0].grad.nan_to_num(), torch.tensor([poison, 5.0]).nan_to_num())


def test_clipping_by_value_keeps_nan_and_limits_inf_and_the_rest_as_torch_does() -> None:
    grads = [torch.tensor([math.nan, 5.0, -0.1]), torch.tensor([-math.inf, 0.2])]
    parameters, theirs = parameters_with(grads), parameters_with(grads)
    training = training_for(sgd(parameters))
    assert training.clip_grad_value(0.5) == (math.inf, 0.5)
    torch.nn.utils.clip_grad_value_(theirs, 0.5)
    for p, q in zip(parameters, theirs, strict=True):
        assert torch.equal(p.grad.nan_to_num(99.0), q.grad.nan_to_num(99.0))
    assert math.isnan(training.global_norm)


def test_clipping_by_value_does_nothing_when_only_nan_is_out_of_range() -> None:
    parameters = parameters_with([torch.tensor([math.nan, 0.1])])
    training = training_for(sgd(parameters))
    assert training.clip_grad_value(0.5) is None
    assert not training.touched


@settings(max_examples=60, deadline=None)
@given(
    magnitude=MAGNITUDES,
    max_norm=MAGNITUDES,
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    norm_type=st.sampled_from([1.0, 2.0, 3.0, math.inf]),
    same=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_clipped_norm_is_max_norm_and_the_direction_is_kept(
    magnitude: float,
    max_norm: float,
    sizes: list[int],
    norm_type: float,
    same: bool,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    grads = [torch.randn(n, generator=generator) * magnitude for n in sizes]
    parameters = parameters_with(grads)
    before = flat64(parameters)
    norm = reference_norm(parameters, norm_type)
    training = training_for(sgd(parameters), norm_type=norm_type if same else 2.0)
    result = training.clip_grad_norm(max_norm, norm_type)
    after = flat64(parameters)
    if not norm > max_norm * (1 + 1e-5):
        assert result is None or norm > max_norm * (1 - 1e-5)
        torch.testing.assert_close(after, before, rtol=1e-5, atol=0.0)
        return
    assert result is not None
    assert result.before == pytest.approx(norm, rel=1e-5)
    assert result.after == max_norm
    assert reference_norm(parameters, norm_type) == pytest.approx(max_norm, rel=1e-5)
    torch.testing.assert_close(after, before * (max_norm / norm), rtol=1e-5, atol=max_norm * 1e-7)
    own = norm_type if same else 2.0
    assert training.global_norm == pytest.approx(reference_norm(parameters, own), rel=1e-5)


@pytest.mark.parametrize(("magnitude", "max_norm"), [(1e30, 1e-30), (1e-30, 1e-31), (1e25, 1e-20)])
def test_a_factor_that_float32_cannot_hold(magnitude: float, max_norm: float) -> None:
    parameters = parameters_with([torch.randn(50) * magnitude])
    training = training_for(sgd(parameters))
    assert training.clip_grad_norm(max_norm) is not None
    assert reference_norm(parameters) == pytest.approx(max_norm, rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(magnitude=MAGNITUDES, value=MAGNITUDES, seed=st.integers(0, 10**6))
def test_clipped_values_are_those_of_torch(magnitude: float, value: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    grads = [torch.randn(n, generator=generator) * magnitude for n in (1, 9, 30)]
    parameters, theirs = parameters_with(grads), parameters_with(grads)
    training = training_for(sgd(parameters))
    top = float(flat64(parameters).abs().max())
    result = training.clip_grad_value(value)
    torch.nn.utils.clip_grad_value_(theirs, value)
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(parameters, theirs, strict=True))
    assert (result is not None) == (top > value)
    if result is not None:
        assert result == (pytest.approx(top), value)
        assert training.global_norm == pytest.approx(reference_norm(parameters), rel=1e-5)


@pytest.mark.parametrize("max_norm", [1e-3, 0.5, 2.0])
def test_every_kind_of_gradient_is_scaled_by_the_same_factor(max_norm: float) -> None:
    parameters = parameters_with(odd_gradients())
    before, norm = flat64(parameters), reference_norm(parameters)
    training = training_for(sgd(parameters))
    training.clip_grad_norm(max_norm)
    # Half of the elements are of half precision, and small ones lose digits there.
    torch.testing.assert_close(
        flat64(parameters), before * (max_norm / norm), rtol=4e-3, atol=max_norm * 1e-3
    )
    assert reference_norm(parameters) == pytest.approx(max_norm, rel=1e-3)
    assert [p.grad.dtype for p in parameters] == [p.dtype for p in parameters]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_gradients_are_not_biased_by_rounding_the_factor(dtype: torch.dtype) -> None:
    parameters = parameters_with([torch.randn(20_000).to(dtype)])
    training = training_for(sgd(parameters))
    training.clip_grad_norm(reference_norm(parameters) / 3)
    assert reference_norm(parameters) == pytest.approx(training.global_norm, rel=1e-4)


@pytest.mark.parametrize("value", [0.3, 1.5])
def test_every_kind_of_gradient_is_limited(value: float) -> None:
    parameters = parameters_with(odd_gradients())
    wanted = []
    for p in parameters:
        grad = p.grad.to_dense() if p.grad.is_sparse else p.grad
        real = torch.view_as_real(grad) if grad.is_complex() else grad
        wanted.append(real.clamp(-value, value))
    training_for(sgd(parameters)).clip_grad_value(value)
    for p, expected in zip(parameters, wanted, strict=True):
        grad = p.grad.to_dense() if p.grad.is_sparse else p.grad
        assert torch.equal(torch.view_as_real(grad) if grad.is_complex() else grad, expected)


def test_clipping_equals_torch_at_ordinary_norms() -> None:
    grads = [torch.randn(50, 50), torch.randn(50)]
    parameters, theirs = parameters_with(grads), parameters_with(grads)
    training_for(sgd(parameters)).clip_grad_norm(1.0)
    torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    for p, q in zip(parameters, theirs, strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=0.0)


def test_a_known_norm_costs_no_second_look_at_the_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> float:
        raise AssertionError("gradients were read again")

    monkeypatch.setattr(change, "norm_of", fail)
    monkeypatch.setattr(change, "largest", fail)
    parameters = parameters_with([torch.tensor([3.0, 4.0])])
    training = training_for(sgd(parameters))
    assert training.clip_grad_value(5.1) is None
    assert training.clip_grad_norm(6.0) is None
    assert training.clip_grad_norm(2.0) == (5.0, 2.0)
    assert training.clip_grad_norm(2.0) is None


def test_later_actions_see_what_earlier_ones_left() -> None:
    parameters = parameters_with([torch.tensor([3.0, 4.0])])
    training = training_for(sgd(parameters))
    training.clip_grad_value(3.0)
    assert training.global_norm == pytest.approx(math.sqrt(18))
    assert training.clip_grad_norm(1.0, math.inf) == (3.0, 1.0)
    assert training.global_norm == pytest.approx(math.sqrt(2))
    training.skip_step()
    assert training.skipped
    assert training.global_norm == 0.0
    assert parameters[0].grad is None
    assert training.named_gradients() == []
    assert training.clip_grad_norm(1e-9) is None
    assert training.clip_grad_value(1e-9) is None


def test_without_an_optimizer_gradients_can_be_changed_and_rates_cannot() -> None:
    parameters = parameters_with([torch.tensor([3.0, 4.0])])
    training = training_for(None, parameters=parameters)
    assert training.scale_lr(0.5) is None
    assert training.learning_rates() == []
    assert training.clip_grad_norm(1.0) == (5.0, 1.0)
    assert training.touched


def test_without_gradients_nothing_happens() -> None:
    p = nn.Parameter(torch.ones(2))
    training = training_for(sgd([p]))
    assert math.isnan(training.global_norm)
    assert training.clip_grad_norm(1.0) is None
    assert training.clip_grad_value(1.0) is None
    training.skip_step()
    assert training.skipped
    assert not training.touched


def test_stop_and_agree_are_passed_on() -> None:
    stopped: list[str] = []
    training = training_for(sgd(parameters_with([torch.ones(1)])), stopped=stopped, step=7)
    training.stop("enough")
    assert (training.step, training.stopped, stopped) == (7, True, ["enough"])
    assert training.agree(True) is True
    assert training.agree(False) is False
