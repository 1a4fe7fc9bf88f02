"""SkipStep: a skipped step leaves nothing behind, in any optimizer of torch."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn, optim

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions import SkipStep
from tests.actions.steps import EXPLODING, NONFINITE, finding, same, training_for

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
