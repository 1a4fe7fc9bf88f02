"""Under a gradient scaler: fused optimizers bring gradients that still carry the loss scale."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradwatch.actions import ClipGradNorm, ClipGradValue, DecayLR, SkipStep
from tests.actions.steps import EXPLODING, NONFINITE, reference_norm, training_for

pytestmark = pytest.mark.usefixtures("each_reader")

SCALE = 1000.0


def scaled_step(fused: bool) -> tuple[nn.Parameter, torch.optim.Adam, torch.amp.GradScaler]:
    """A backward pass of the loss 3 a + 4 b, as Lightning leaves it before the step."""
    weight = nn.Parameter(torch.ones(2))
    adam = torch.optim.Adam([weight], lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    scaler.scale((weight * torch.tensor([3.0, 4.0])).sum()).backward()
    if not fused:
        scaler.unscale_(adam)
    return weight, adam, scaler


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("norm_type", [2.0, 1.0])
def test_clip_by_norm(fused: bool, norm_type: float) -> None:
    weight, adam, scaler = scaled_step(fused)
    training = training_for(adam, scaler=scaler, norm=5.0)
    record = ClipGradNorm(2.0, norm_type).apply([], training)
    assert record is not None
    assert record.before == pytest.approx(5.0 if norm_type == 2.0 else 7.0)
    assert reference_norm([weight], norm_type) == pytest.approx(2.0, rel=1e-6)
    scaler.step(adam)
    scaler.update()
    assert adam.state[weight]["step"] == 1
    first_moment = adam.state[weight]["exp_avg"] / 0.1
    assert float(first_moment.norm(norm_type)) == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_clip_by_value(fused: bool) -> None:
    weight, adam, scaler = scaled_step(fused)
    record = ClipGradValue(3.5).apply([], training_for(adam, scaler=scaler, norm=5.0))
    assert record is not None
    assert record.before == pytest.approx(4.0)
    assert weight.grad.tolist() == pytest.approx([3.0, 3.5])


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("action", [ClipGradNorm(6.0), ClipGradNorm(8.0, 1.0), ClipGradValue(4.5)])
def test_nothing_to_do_leaves_even_the_scale_on_the_gradients(fused: bool, action: object) -> None:
    weight, adam, scaler = scaled_step(fused)
    before = weight.grad.clone()
    assert action.apply([], training_for(adam, scaler=scaler, norm=5.0)) is None
    assert torch.equal(weight.grad, before)


@pytest.mark.parametrize("fused", [False, True])
def test_skip(fused: bool) -> None:
    weight, adam, scaler = scaled_step(fused)
    record = SkipStep(on=("exploding",)).apply(EXPLODING, training_for(adam, scaler=scaler))
    assert record is not None
    scaler.step(adam)
    scaler.update()
    assert torch.equal(weight.detach(), torch.ones(2))
    assert not adam.state[weight] or adam.state[weight]["step"] == 0
    assert scaler.get_scale() == SCALE


@pytest.mark.parametrize("fused", [False, True])
def test_an_overflow_is_left_to_the_scaler(fused: bool) -> None:
    weight = nn.Parameter(torch.ones(2))
    adam = torch.optim.Adam([weight], lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    scaler.scale((weight * torch.tensor([3.0, 3e38])).sum()).backward()
    if not fused:
        scaler.unscale_(adam)
    skip, decay = SkipStep(max_consecutive=1), DecayLR(on=("nonfinite",), cooldown=0)
    stopped: list[str] = []
    for action in (ClipGradNorm(1.0), ClipGradNorm(1.0, 1.0), ClipGradValue(1.0), skip, decay):
        training = training_for(adam, scaler=scaler, stopped=stopped, amp_overflow=True)
        assert action.apply(NONFINITE, training) is None
        assert not training.touched
    assert stopped == []
    assert adam.param_groups[0]["lr"] == 0.1
    assert skip.state_dict() == {"in_a_row": {}}
    assert decay.state_dict() == {"clocks": {}}
    scaler.step(adam)
    scaler.update()
    assert torch.equal(weight.detach(), torch.ones(2))
    assert scaler.get_scale() == SCALE / 2


def test_an_overflow_does_not_end_a_row_of_skips() -> None:
    weight = nn.Parameter(torch.ones(2))
    sgd = torch.optim.SGD([weight], lr=0.1)
    skip = SkipStep(max_consecutive=3)
    for overflow in (False, True, False):
        weight.grad = torch.full((2,), torch.nan)
        skip.apply(NONFINITE, training_for(sgd, amp_overflow=overflow))
    assert skip.state_dict() == {"in_a_row": {"0": 2}}
