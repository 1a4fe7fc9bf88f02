"""A lowered learning rate stays lowered: every scheduler of torch against its undisturbed self."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as sched
from torch.optim.swa_utils import SWALR

from lightning_gradwatch.actions.learning_rate import (
    all_familiar,
    scale_learning_rates,
    schedulers_of,
)

STEPS = 30

Make = Callable[[torch.optim.Optimizer], Any]

SCHEDULERS: dict[str, Make] = {
    "none": lambda o: None,
    "StepLR": lambda o: sched.StepLR(o, 7, 0.3),
    "MultiStepLR": lambda o: sched.MultiStepLR(o, [4, 11, 20], 0.3),
    "ExponentialLR": lambda o: sched.ExponentialLR(o, 0.93),
    "MultiplicativeLR": lambda o: sched.MultiplicativeLR(o, lambda e: 0.9 + 0.01 * (e % 3)),
    "ConstantLR": lambda o: sched.ConstantLR(o, 0.25, 12),
    "LinearLR": lambda o: sched.LinearLR(o, 0.1, 1.0, 15),
    "PolynomialLR": lambda o: sched.PolynomialLR(o, 25, 2.0),
    "LambdaLR warm-up": lambda o: sched.LambdaLR(o, lambda e: min(1.0, (e + 1) / 12)),
    "LambdaLR by group": lambda o: sched.LambdaLR(o, [lambda e: 0.95**e, lambda e: 1 / (1 + e)]),
    "CosineAnnealingLR": lambda o: sched.CosineAnnealingLR(o, 20),
    "CosineAnnealingLR floor": lambda o: sched.CosineAnnealingLR(o, 20, eta_min=0.01),
    "CosineAnnealingWarmRestarts": lambda o: sched.CosineAnnealingWarmRestarts(o, 8, 2, 0.001),
    "CyclicLR": lambda o: sched.CyclicLR(o, 0.01, 0.2, 4, cycle_momentum=False),
    "CyclicLR triangular2": lambda o: sched.CyclicLR(
        o, [0.01, 0.02], [0.2, 0.3], 3, 5, mode="triangular2", cycle_momentum=False
    ),
    "OneCycleLR": lambda o: sched.OneCycleLR(o, 0.4, total_steps=STEPS + 1),
    "OneCycleLR three phases": lambda o: sched.OneCycleLR(
        o, [0.4, 0.1], total_steps=STEPS + 1, three_phase=True, anneal_strategy="linear"
    ),
    "SWALR": lambda o: SWALR(o, swa_lr=0.02, anneal_epochs=10),
    "SWALR linear": lambda o: SWALR(o, swa_lr=0.5, anneal_epochs=18, anneal_strategy="linear"),
    "ReduceLROnPlateau": lambda o: sched.ReduceLROnPlateau(
        o, factor=0.5, patience=2, min_lr=[0.011, 0.002]
    ),
    "ReduceLROnPlateau eps": lambda o: sched.ReduceLROnPlateau(o, factor=0.5, patience=1, eps=5e-3),
    "ChainedScheduler": lambda o: sched.ChainedScheduler(
        [sched.ConstantLR(o, 0.1, 5), sched.ExponentialLR(o, 0.9)]
    ),
    "SequentialLR closed form": lambda o: sched.SequentialLR(
        o,
        [sched.LinearLR(o, 0.1, 1.0, 6), sched.CosineAnnealingLR(o, 12), sched.StepLR(o, 3, 0.5)],
        [6, 18],
    ),
    "SequentialLR of LambdaLR": lambda o: sched.SequentialLR(
        o,
        [sched.LambdaLR(o, lambda e: (e + 1) / 8), sched.ExponentialLR(o, 0.9)],
        [8],
    ),
    "SequentialLR in ChainedScheduler": lambda o: sched.ChainedScheduler(
        [
            sched.SequentialLR(o, [sched.ConstantLR(o, 0.3, 4), sched.PolynomialLR(o, 20)], [9]),
            sched.ExponentialLR(o, 0.97),
        ]
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # SequentialLR itself calls what torch deprecates; OneCycleLR is built on a used optimizer.
        warnings.filterwarnings("ignore", message=".*(epoch parameter|lr_scheduler.step).*")
        yield


def build(make: Make, tensor_lr: bool) -> tuple[torch.optim.Optimizer, Any]:
    rates: list[Any] = [0.1, 0.03]
    if tensor_lr:
        rates = [torch.tensor(r, dtype=torch.float64) for r in rates]
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in rates]
    optimizer = torch.optim.SGD(groups, lr=rates[0], momentum=0.9)
    return optimizer, make(optimizer)


def curve(
    make: Make,
    decays: dict[int, list[float]] | None = None,
    resume_at: int | None = None,
    tensor_lr: bool = False,
) -> list[list[float]]:
    """The learning rate of each group at each step, decayed and resumed where asked."""
    optimizer, scheduler = build(make, tensor_lr)
    rates = []
    for step in range(STEPS):
        if step == resume_at:
            saved = io.BytesIO()
            torch.save([optimizer.state_dict(), scheduler and scheduler.state_dict()], saved)
            saved.seek(0)
            states = torch.load(saved, weights_only=False)
            optimizer, scheduler = build(make, tensor_lr)
            optimizer.load_state_dict(states[0])
            if scheduler is not None:
                scheduler.load_state_dict(states[1])
        for factor in (decays or {}).get(step, []):
            assert scale_learning_rates(optimizer, [scheduler], factor) is not None
            if scheduler is not None:
                shown = [float(rate) for rate in scheduler.get_last_lr()]
                assert shown == [float(group["lr"]) for group in optimizer.param_groups]
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        if isinstance(scheduler, sched.ReduceLROnPlateau):
            scheduler.step(max(0.0, 5.0 - step))
        elif scheduler is not None:
            scheduler.step()
    return rates


def assert_ratio(
    decayed: list[list[float]], undisturbed: list[list[float]], ratio: Callable[[int], float]
) -> None:
    for step, (ours, plain) in enumerate(zip(decayed, undisturbed, strict=True)):
        wanted = [rate * ratio(step) for rate in plain]
        assert ours == pytest.approx(wanted, rel=1e-6, abs=1e-14), f"step {step}"


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("decay_at", [0, 1, 5, 13])
def test_the_ratio_to_the_undisturbed_schedule_holds_at_every_later_step(
    name: str, decay_at: int
) -> None:
    plain = curve(SCHEDULERS[name])
    decayed = curve(SCHEDULERS[name], {decay_at: [0.5]})
    assert_ratio(decayed, plain, lambda step: 0.5 if step >= decay_at else 1.0)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_decays_multiply_and_survive_a_checkpoint(name: str) -> None:
    plain = curve(SCHEDULERS[name])
    decayed = curve(SCHEDULERS[name], {3: [0.5], 9: [0.2], 19: [0.9]}, resume_at=11)
    assert_ratio(
        decayed, plain, lambda step: 0.5 ** (step >= 3) * 0.2 ** (step >= 9) * 0.9 ** (step >= 19)
    )


@pytest.mark.parametrize("name", SCHEDULERS)
def test_tensor_learning_rates(name: str) -> None:
    if name == "SequentialLR closed form" and torch.__version__.startswith("2.4."):
        pytest.skip("in torch 2.4 a tensor rate and its initial value are one tensor")
    plain = curve(SCHEDULERS[name], tensor_lr=True)
    decayed = curve(SCHEDULERS[name], {6: [0.5]}, resume_at=9, tensor_lr=True)
    assert_ratio(decayed, plain, lambda step: 0.5 if step >= 6 else 1.0)


def test_the_bare_change_of_the_group_would_be_lost() -> None:
    """The reason for this module: without it the next step of LambdaLR brings the old rate back."""
    optimizer, scheduler = build(SCHEDULERS["LambdaLR warm-up"], tensor_lr=False)
    undisturbed = curve(SCHEDULERS["LambdaLR warm-up"])
    optimizer.param_groups[0]["lr"] *= 0.5
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(undisturbed[1][0])


def test_a_tensor_rate_is_changed_in_place_and_a_shared_one_once() -> None:
    rate = torch.tensor(0.1)
    groups = [{"params": [nn.Parameter(torch.ones(1))]} for _ in range(2)]
    optimizer = torch.optim.Adam(groups, lr=rate)
    assert all(group["lr"] is rate for group in optimizer.param_groups)
    change = scale_learning_rates(optimizer, [], 0.5)
    assert all(group["lr"] is rate for group in optimizer.param_groups)
    assert float(rate) == pytest.approx(0.05)
    assert change == (pytest.approx(0.1), pytest.approx(0.05))


def test_min_lr_holds_group_by_group() -> None:
    optimizer, scheduler = build(SCHEDULERS["LambdaLR by group"], tensor_lr=False)
    assert scale_learning_rates(optimizer, [scheduler], 0.5, min_lr=0.02) == (0.1, 0.05)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.05, 0.02])
    assert scheduler.base_lrs == pytest.approx([0.05, 0.02])
    assert scale_learning_rates(optimizer, [scheduler], 0.5, min_lr=0.02) == (
        0.05,
        pytest.approx(0.025),
    )
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.025, 0.02])
    scale_learning_rates(optimizer, [scheduler], 0.5, min_lr=0.02)
    state = copy.deepcopy((optimizer.state_dict(), scheduler.base_lrs, scheduler.get_last_lr()))
    assert scale_learning_rates(optimizer, [scheduler], 0.5, min_lr=0.02) is None
    assert state == (optimizer.state_dict(), scheduler.base_lrs, scheduler.get_last_lr())


def test_rounding_does_not_keep_a_rate_above_its_floor() -> None:
    for i in range(1, 50):
        rate, floor = torch.tensor(0.1 + i / 997), 0.1 + i / 1009
        optimizer = torch.optim.Adam([nn.Parameter(torch.ones(1))], lr=rate)
        assert scale_learning_rates(optimizer, [], 0.5, floor) is not None
        assert float(rate) == pytest.approx(floor)
        assert scale_learning_rates(optimizer, [], 0.5, floor) is None


@pytest.mark.skipif(
    torch.__version__.startswith("2.4."), reason="torch 2.4 raises here, with or without us"
)
def test_the_floor_of_groups_added_later_is_lowered_too() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    plateau = sched.ReduceLROnPlateau(optimizer, factor=0.1, patience=0, min_lr=0.04)
    scale_learning_rates(optimizer, [plateau], 0.5)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.05})
    for _ in range(3):
        plateau.step(1.0)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.02, 0.02])


@pytest.mark.parametrize("rate", [0.0, float("nan"), None])
def test_a_rate_that_cannot_be_lowered_is_left_alone(rate: float | None) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    optimizer.param_groups[0]["lr"] = rate
    assert scale_learning_rates(optimizer, [], 0.5) is None
    assert optimizer.param_groups[0]["lr"] is rate


def test_only_the_schedulers_of_this_optimizer_are_touched() -> None:
    mine, theirs = (build(SCHEDULERS["OneCycleLR"], tensor_lr=False) for _ in range(2))
    before = copy.deepcopy((theirs[0].param_groups, theirs[1].state_dict()))
    scale_learning_rates(mine[0], [mine[1], theirs[1], None, object()], 0.5)
    assert mine[0].param_groups[0]["max_lr"] == pytest.approx(0.2)
    after = (theirs[0].param_groups, theirs[1].state_dict())
    assert [g["max_lr"] for g in after[0]] == [g["max_lr"] for g in before[0]]
    assert after[1]["_last_lr"] == before[1]["_last_lr"]


class Warmup:
    """A wrapper as other packages have them, with the scheduler it hands over to inside."""

    def __init__(self, optimizer: torch.optim.Optimizer, then: Any) -> None:
        self.optimizer, self.after_scheduler, self.itself = optimizer, then, self

    def step(self) -> None:
        self.after_scheduler.step()


def test_schedulers_inside_wrappers_of_others_are_found() -> None:
    optimizer, inner = build(SCHEDULERS["CosineAnnealingLR floor"], tensor_lr=False)
    wrapper = Warmup(optimizer, inner)
    assert list(schedulers_of(optimizer, [wrapper])) == [wrapper, inner]
    scale_learning_rates(optimizer, [wrapper], 0.5)
    assert inner.base_lrs == pytest.approx([0.05, 0.015])
    assert inner.eta_min == pytest.approx(0.005)
    assert not all_familiar(optimizer, [wrapper])
    assert all_familiar(optimizer, [inner])
    assert not all_familiar(optimizer, [])
