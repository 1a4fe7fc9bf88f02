"""DecayLR: when it acts, how far, and what it says when something undoes it."""

from __future__ import annotations

import copy
import json
import math
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions import DecayLR
from lightning_gradwatch.errors import GradWatchWarning
from tests.actions.steps import EXPLODING, NONFINITE, finding, training_for


def sgd(lr: float = 0.1) -> torch.optim.SGD:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([3.0, 4.0])
    return torch.optim.SGD([weight], lr=lr)


def rates(action: DecayLR, optimizer: torch.optim.Optimizer, sick: list[int], n: int) -> list[Any]:
    """Apply for n steps, exploding at some; return the learning rate after each."""
    out = []
    for step in range(n):
        found = EXPLODING if step in sick else []
        action.apply(found, training_for(optimizer, step=step))
        out.append(optimizer.param_groups[0]["lr"])
    return out


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_nonfinite_gradients_can_set_it_off_and_stay(poison: float) -> None:
    optimizer = sgd()
    weight = optimizer.param_groups[0]["params"][0]
    weight.grad[0] = poison
    record = DecayLR(on=("nonfinite",)).apply(NONFINITE, training_for(optimizer))
    assert record is not None
    assert (record.before, record.after) == (0.1, 0.05)
    assert not math.isfinite(weight.grad[0])


def test_the_record_says_why_with_the_numbers() -> None:
    record = DecayLR(factor=0.1).apply(EXPLODING, training_for(sgd(), step=12))
    assert record == ActionRecord(
        "DecayLR", 12, "exploding in layer0 (norm 812)", 0.1, pytest.approx(0.01)
    )


def test_the_summary_of_the_finding_is_quoted() -> None:
    found = [finding("spike"), finding("exploding", summary="norm 9e4 is 300 times its usual")]
    record = DecayLR().apply(found, training_for(sgd()))
    assert record is not None
    assert record.reason == "exploding: norm 9e4 is 300 times its usual"


def test_only_the_codes_asked_for_count() -> None:
    optimizer = sgd()
    assert DecayLR().apply([finding("spike")], training_for(optimizer)) is None
    assert DecayLR(on="spike").apply(EXPLODING, training_for(optimizer)) is None
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert DecayLR(on=("my.code",)).apply([finding("my.code")], training_for(optimizer))


def test_cooldown_is_counted_in_steps_between_two_decays() -> None:
    got = rates(DecayLR(cooldown=3), sgd(0.8), list(range(2, 20)), 11)
    assert got == [0.8, 0.8, 0.4, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.2, 0.1]
    assert rates(DecayLR(cooldown=0), sgd(0.8), [0, 1, 2], 4) == [0.4, 0.2, 0.1, 0.1]


def test_each_optimizer_has_its_own_clock() -> None:
    action, first, second = DecayLR(cooldown=50), sgd(0.8), sgd(0.4)
    for step in range(6):
        action.apply(EXPLODING, training_for(first, step=step, index=0))
        action.apply(EXPLODING if step == 4 else [], training_for(second, step=step, index=1))
    assert first.param_groups[0]["lr"] == 0.4
    assert second.param_groups[0]["lr"] == 0.2


def test_min_lr_is_a_floor_and_at_it_nothing_happens() -> None:
    optimizer = sgd(0.1)
    action = DecayLR(factor=0.3, cooldown=0, min_lr=0.02)
    records = [action.apply(EXPLODING, training_for(optimizer)) for _ in range(4)]
    assert [r and round(r.after, 12) for r in records] == [0.03, 0.02, None, None]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02)


def test_a_floor_above_the_rate_is_said_once() -> None:
    optimizer, action = sgd(0.001), DecayLR(min_lr=0.01)
    with pytest.warns(GradWatchWarning, match=r"\[0.001\]: min_lr is 0.01"):
        assert action.apply(EXPLODING, training_for(optimizer)) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert action.apply(EXPLODING, training_for(optimizer)) is None


def test_a_resumed_run_decides_as_an_uninterrupted_one() -> None:
    sick = [1, 2, 7, 8, 9, 15]
    whole = rates(DecayLR(cooldown=5), sgd(), sick, 18)
    for cut in range(1, 17):
        first, optimizer = DecayLR(cooldown=5), sgd()
        begun = rates(first, optimizer, [s for s in sick if s < cut], cut)
        state = json.loads(json.dumps(first.state_dict()))
        second = DecayLR(cooldown=5)
        second.load_state_dict(state)
        ended = rates(second, optimizer, [s - cut for s in sick], 18 - cut)
        assert begun + ended == whole


def test_reset_begins_a_new_run() -> None:
    action, optimizer = DecayLR(cooldown=100), sgd(0.8)
    assert action.apply(EXPLODING, training_for(optimizer)) is not None
    assert action.apply(EXPLODING, training_for(optimizer)) is None
    action.reset()
    assert action.apply(EXPLODING, training_for(optimizer)) is not None


class Stubborn(LRScheduler):
    """Knows its own learning rates, as many schedulers outside torch do."""

    def get_lr(self) -> list[float]:
        return [0.1 * 0.999**self.last_epoch for _ in self.optimizer.param_groups]


class Gentle(LRScheduler):
    """A warm-up of one's own that multiplies what it finds: the decay lasts."""

    def get_lr(self) -> list[float]:
        return [group["lr"] * 1.1 for group in self.optimizer.param_groups]


def run_under(scheduler: Any, steps: int) -> list[warnings.WarningMessage]:
    action, optimizer = DecayLR(cooldown=3), scheduler.optimizer
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(steps):
            found = EXPLODING if step in (2, 9) else []
            action.apply(found, training_for(optimizer, step=step, schedulers=[scheduler]))
            optimizer.step()
            scheduler.step()
    return [w for w in caught if issubclass(w.category, GradWatchWarning)]


def test_a_scheduler_that_writes_the_old_rate_back_is_said_once() -> None:
    caught = run_under(Stubborn(sgd()), 20)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "lowered the learning rate to 0.0499" in message
    assert "by step 3 something has set it back to 0.0997" in message


def test_schedulers_under_which_the_decay_lasts_are_not_accused() -> None:
    assert run_under(Gentle(sgd()), 40) == []
    # Multiplies by 7 in one step: torch's own may jump, and is scaled exactly all the same.
    optimizer = sgd()
    jumping = LambdaLR(optimizer, lambda e: 1.0 if e % 5 else 7.0)
    assert run_under(jumping, 20) == []


def test_a_rate_set_by_hand_is_noticed_without_any_scheduler() -> None:
    optimizer, action = sgd(), DecayLR()
    action.apply(EXPLODING, training_for(optimizer))
    action.apply([], training_for(optimizer, step=1))
    resumed = DecayLR()
    resumed.load_state_dict(json.loads(json.dumps(action.state_dict())))
    optimizer.param_groups[0]["lr"] = 0.1
    for one in (action, resumed):
        with pytest.warns(GradWatchWarning, match="by step 2 something has set it back to 0.1"):
            one.apply([], training_for(optimizer, step=2))


@pytest.mark.parametrize(
    ("arguments", "error", "shown"),
    [
        ({"factor": math.nan}, ValueError, "nan"),
        ({"factor": 1.0}, ValueError, "> 0 and < 1, got 1.0"),
        ({"factor": 0}, ValueError, "got 0"),
        ({"factor": "half"}, TypeError, "'half'"),
        ({"cooldown": -1}, ValueError, ">= 0, got -1"),
        ({"cooldown": 1.5}, TypeError, "1.5"),
        ({"min_lr": -1e-9}, ValueError, "-1e-09"),
        ({"on": ("explodng",)}, ValueError, "explodng.*Choose from.*exploding"),
        ({"on": ()}, ValueError, "no finding code"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: dict[str, Any], error: type[Exception], shown: str
) -> None:
    with pytest.raises(error, match=shown):
        DecayLR(**arguments)


def test_a_copy_keeps_its_own_clock() -> None:
    action = DecayLR()
    other = copy.deepcopy(action)
    action.apply(EXPLODING, training_for(sgd()))
    assert other.state_dict() == {"clocks": {}}
