"""SkipStep: a skipped step leaves nothing behind, in any optimizer of torch."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions import SkipStep
from tests.actions.steps import EXPLODING, NONFINITE, Ranks, finding, same, training_for
from tests.actions.test_in_trainer import Net, fit, scaler

OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], optim.Optimizer]] = {
    "SGD": partial(optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1),
    "SGD nesterov": partial(optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "SGD fused": partial(optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1, fused=True),
    "RMSprop": partial(optim.RMSprop, lr=0.01, momentum=0.9, weight_decay=0.1),
    "NAdam": partial(optim.NAdam, lr=0.01, weight_decay=0.1),
    "RAdam": partial(optim.RAdam, lr=0.01, weight_decay=0.1),
    "Adamax": partial(optim.Adamax, lr=0.01, weight_decay=0.1),
    "Adagrad": partial(optim.Adagrad, lr=0.1, lr_decay=0.1, weight_decay=0.1),
    "Adadelta": partial(optim.Adadelta, lr=1.0, weight_decay=0.1),
    "Rprop": partial(optim.Rprop, lr=0.01),
    "ASGD": partial(optim.ASGD, lr=0.1, weight_decay=0.1),
}
for name, cls in {"Adam": optim.Adam, "AdamW": optim.AdamW}.items():
    for kind in ("foreach", "fused", "amsgrad"):
        OPTIMIZERS[f"{name} {kind}"] = partial(cls, lr=0.01, weight_decay=0.1, **{kind: True})
    OPTIMIZERS[f"{name} plain"] = partial(cls, lr=0.01, weight_decay=0.1, foreach=False)
for name in ("Adafactor", "Muon"):  # newer than the oldest torch we run on
    if hasattr(optim, name):
        OPTIMIZERS[name] = partial(getattr(optim, name), lr=0.01, weight_decay=0.1)


def gradients(parameters: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=generator)


def snapshot(parameters: list[nn.Parameter], optimizer: optim.Optimizer) -> Any:
    return copy.deepcopy(([p.detach() for p in parameters], optimizer.state_dict()["state"]))


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e4])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_moments_counters_and_decay_stay_as_they_were(name: str, poison: float) -> None:
    parameters = [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(2, 2))]
    untroubled = [nn.Parameter(p.detach().clone()) for p in parameters]
    ours, theirs = OPTIMIZERS[name](parameters), OPTIMIZERS[name](untroubled)
    action = SkipStep()
    for step in range(6):
        if step in (3, 4):
            for p in parameters:
                p.grad = torch.full_like(p, poison)
            before = snapshot(parameters, ours)
            assert action.apply(NONFINITE, training_for(ours)) is not None
            ours.step()
            assert same(snapshot(parameters, ours), before)
            continue
        gradients(parameters, step)
        gradients(untroubled, step)
        assert action.apply([], training_for(ours)) is None
        ours.step()
        theirs.step()
    # The run is the one that never drew the bad batches.
    assert same(snapshot(parameters, ours), snapshot(untroubled, theirs))


def test_a_zeroed_gradient_would_have_moved_the_weights() -> None:
    """The reason for None: this is what the test above would see with zeros."""
    weight = nn.Parameter(torch.ones(2))
    adam = optim.Adam([weight], lr=0.01)
    weight.grad = torch.ones(2)
    adam.step()
    before = weight.detach().clone()
    weight.grad = torch.zeros(2)
    adam.step()
    assert not torch.equal(weight, before)


def test_lbfgs_does_not_move() -> None:
    weight = nn.Parameter(torch.ones(2))
    lbfgs = optim.LBFGS([weight], lr=0.1)
    skip = SkipStep()

    def closure() -> torch.Tensor:
        lbfgs.zero_grad()
        loss = (weight * torch.nan).sum()
        loss.backward()
        skip.apply(NONFINITE, training_for(lbfgs))
        return loss.detach()

    lbfgs.step(closure)
    assert torch.equal(weight.detach(), torch.ones(2))


def sick_sgd() -> optim.SGD:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([torch.nan, 1.0])
    return optim.SGD([weight], lr=0.1)


def test_the_record_says_why() -> None:
    record = SkipStep(on=("exploding",)).apply(
        EXPLODING, training_for(sick_sgd(), step=3, norm=7.0)
    )
    assert record == ActionRecord("SkipStep", 3, "exploding in layer0 (norm 812)", 7.0, 0.0)


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_a_lost_loss_alone_skips_nothing(lost: float) -> None:
    """The gradients are finite, here and on all other ranks: the step harms no weight."""
    for norm, others, skipped in ((1.0, False, False), (math.nan, False, True), (1.0, True, True)):
        parameters = [nn.Parameter(torch.ones(2))]
        parameters[0].grad = torch.full((2,), norm)
        ranks = Ranks(others)
        training = training_for(optim.SGD(parameters, 0.1), loss=lost, has_loss=True, ranks=ranks)
        assert (SkipStep().apply(NONFINITE, training) is not None) == skipped == training.skipped
        assert ranks.calls == 1


def test_beside_another_code_it_skips_for_that_one() -> None:
    parameters = [nn.Parameter(torch.ones(2))]
    parameters[0].grad = torch.ones(2)
    training = training_for(optim.SGD(parameters, 0.1), loss=math.inf, has_loss=True)
    record = SkipStep(on=("nonfinite", "exploding")).apply([*NONFINITE, *EXPLODING], training)
    assert record is not None
    assert record.reason.startswith("exploding")


def test_other_codes_do_not_skip() -> None:
    training = training_for(sick_sgd())
    assert SkipStep().apply([*EXPLODING, finding("spike")], training) is None
    assert not training.skipped


def test_after_too_many_in_a_row_training_stops_with_the_reason() -> None:
    action, stopped = SkipStep(max_consecutive=3), []
    for found in (NONFINITE, NONFINITE, [], NONFINITE, NONFINITE):
        action.apply(found, training_for(sick_sgd(), stopped=stopped))
    assert stopped == []
    training = training_for(sick_sgd(), stopped=stopped)
    record = action.apply(NONFINITE, training)
    assert training.skipped
    assert record is not None
    assert "3 steps skipped in a row (max_consecutive): training stops" in record.reason
    assert stopped == [f"SkipStep: {record.reason}"]


def test_skips_are_counted_for_each_optimizer() -> None:
    action, stopped = SkipStep(max_consecutive=2), []
    for index, found in ((0, NONFINITE), (1, NONFINITE), (0, []), (1, []), (0, NONFINITE)):
        action.apply(found, training_for(sick_sgd(), index=index, stopped=stopped))
    assert stopped == []
    assert action.state_dict() == {"in_a_row": {"0": 1}}


def test_a_resumed_run_counts_on() -> None:
    first, second, stopped = SkipStep(max_consecutive=2), SkipStep(max_consecutive=2), []
    first.apply(NONFINITE, training_for(sick_sgd(), stopped=stopped))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    second.apply(NONFINITE, training_for(sick_sgd(), stopped=stopped))
    assert len(stopped) == 1
    second.reset()
    second.apply(NONFINITE, training_for(sick_sgd(), stopped=stopped))
    assert len(stopped) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "shown"),
    [
        ({"on": ("nan",)}, ValueError, "'nan'.*Choose from.*nonfinite"),
        ({"max_consecutive": 0}, ValueError, ">= 1, got 0"),
        ({"max_consecutive": 2.0}, TypeError, "2.0"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: dict[str, Any], error: type[Exception], shown: str
) -> None:
    with pytest.raises(error, match=shown):
        SkipStep(**arguments)


class Normed(Net):
    """BatchNorm, and a buffer of the module's own that counts batches."""

    def __init__(self, make: Any, schedule: Any = None) -> None:
        super().__init__(make, schedule)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
        self.register_buffer("seen", torch.zeros(1), persistent=False)
        self.register_buffer("fixed", torch.arange(3))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
        self.seen += batch.sum()
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("sick", [0, 3])
def test_buffers_are_as_if_the_batch_had_not_been_drawn(
    tmp_path: Path, sick: int, amp: bool
) -> None:
    def run(**more: Any) -> Any:
        plugins = [scaler()] if amp else []
        return fit(tmp_path, [SkipStep()], kind=Normed, detectors=None, plugins=plugins, **more)

    _, watch, _, model = run(sick=[sick], make=lambda p: optim.SGD(p, lr=1e-12))
    _, _, _, untroubled = run(make=lambda p: optim.SGD(p, lr=1e-12))
    assert [r.step for r in watch.actions_taken] == [sick]
    assert all(torch.isfinite(t).all() for t in (*model.state_dict().values(), model.seen))
    assert model.net[1].num_batches_tracked == untroubled.net[1].num_batches_tracked - 1
    if amp:
        assert watch.actions_taken[0].reason.endswith("buffers are put back")


def test_of_an_accumulation_window_all_batches_are_undone(tmp_path: Path) -> None:
    _, watch, _, model = fit(
        tmp_path, [SkipStep()], kind=Normed, detectors=None, sick=[3], accumulate_grad_batches=2
    )
    assert [r.step for r in watch.actions_taken] == [1]
    assert model.net[1].num_batches_tracked == 6


def test_a_healthy_run_with_buffers_is_bit_identical(tmp_path: Path) -> None:
    make = partial(optim.Adam, lr=0.001)
    _, _, _, ours = fit(tmp_path, [SkipStep()], kind=Normed, detectors=None, make=make)
    _, _, _, plain = fit(tmp_path, [], kind=Normed, watch=False, make=make)
    assert same(ours.state_dict(), plain.state_dict())
