"""Rollback in real fits: back to a state older than the damage, and on with a lower rate."""

from __future__ import annotations

import gc
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as sched
from torch.optim.swa_utils import SWALR

from lightning_gradwatch import GradWatch, GradWatchWarning
from lightning_gradwatch.actions import Rollback, SkipStep, rescue, shelf
from lightning_gradwatch.actions.snapshot import Trained
from lightning_gradwatch.errors import ConfigurationError
from lightning_gradwatch.finding import Finding, Severity
from tests.actions import test_in_trainer as base
from tests.actions.test_in_trainer import (
    FindsAt,
    FindsNonfinite,
    Net,
    Spy,
    TwoOptimizers,
    adam,
    scaler,
)

torch.set_num_threads(1)
STEPS = 60
RATE = 0.003


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=RATE, momentum=0.9, weight_decay=0.1)


def fit(tmp_path: Path, actions: Any, *, make: Any = sgd, batches: int = STEPS, **more: Any) -> Any:
    return base.fit(tmp_path, actions, make=make, batches=batches, **more)


def acted(watch: GradWatch) -> list[tuple[str, int]]:
    return [(r.action, r.step) for r in watch.actions_taken]


def before(spy: Spy, step: int) -> torch.Tensor:
    """The weights before a step."""
    return spy.weights[step - 1]


class Normed(Net):
    """With buffers that every batch changes."""

    def __init__(self, make: Any, schedule: Any = None) -> None:
        super().__init__(make, schedule)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4))


# ------------------------------------------------------------------ NaN first


def test_alone_it_goes_back_at_a_nan_batch(tmp_path: Path) -> None:
    spy, watch, runner, model = fit(
        tmp_path, [Rollback()], kind=Normed, detectors=[FindsNonfinite()], sick=[30],
        batches=STEPS, make=adam(False),
    )  # fmt: skip
    assert acted(watch) == [("Rollback", 30)]
    record = watch.actions_taken[0]
    assert (record.before, record.after) == (0.01, 0.005)
    assert record.reason.endswith("back to the state of step 10")
    # Weights are those before step 10, and the poisoned running mean is a number again.
    assert torch.equal(spy.weights[30], before(spy, 10))
    assert all(torch.isfinite(t).all() for t in model.state_dict().values())
    assert not torch.equal(spy.weights[31], spy.weights[30])
    assert runner.global_step == STEPS


def test_single_nan_batches_are_left_to_skip_step(tmp_path: Path) -> None:
    _, watch, _, _ = fit(
        tmp_path, [SkipStep(), Rollback()], detectors=[FindsNonfinite()], sick=[20, 30, 31, 40],

    )  # fmt: skip
    assert acted(watch) == [("SkipStep", s) for s in (20, 30, 31, 40)]


def test_three_in_a_row_from_the_data_are_left_to_skip_step_too(tmp_path: Path) -> None:
    """The weights are fine, and so is the loss of the steps that are made."""
    sick = [*range(10, 13), *range(20, 23), *range(40, 46)]
    _, watch, _, _ = fit(
        tmp_path, [SkipStep(), Rollback()], detectors=[FindsNonfinite()], sick=sick
    )
    assert acted(watch) == [("SkipStep", s) for s in sick]


def test_the_seventh_in_a_row_is_no_accident_but_no_reason_to_lower_the_rate(
    tmp_path: Path,
) -> None:
    spy, watch, runner, _ = fit(
        tmp_path, [SkipStep(), Rollback()], detectors=[FindsNonfinite()], sick=range(30, 37)
    )
    assert [a for a in acted(watch) if a[0] == "Rollback"] == [("Rollback", 36)]
    assert "7 such steps in a row" in watch.actions_taken[-1].reason
    assert spy.rates[-1] == RATE
    assert runner.global_step == STEPS


def test_the_second_time_the_rate_comes_down_all_the_same(tmp_path: Path) -> None:
    spy, watch, _, _ = fit(
        tmp_path, [SkipStep(), Rollback()], detectors=[FindsNonfinite()], batches=120,
        sick=[*range(30, 37), *range(80, 87)],
    )  # fmt: skip
    assert [a for a in acted(watch) if a[0] == "Rollback"] == [("Rollback", 36), ("Rollback", 86)]
    assert spy.rates[-1] == RATE / 2


class Overflows(Net):
    """The loss is Inf in half precision at every step, and no gradient is."""

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss + (70_000.0 + 0 * loss).half()


@pytest.mark.parametrize(
    "actions", [lambda: [SkipStep(), Rollback()], lambda: [Rollback()], rescue]
)
def test_a_loss_of_inf_with_finite_gradients_is_no_reason(tmp_path: Path, actions: Any) -> None:
    ours, watch, _, _ = fit(tmp_path, actions(), kind=Overflows, detectors=None)
    plain, _, _, _ = fit(tmp_path, [], kind=Overflows, watch=False)
    assert watch.history.loss.tolist() == [math.inf] * STEPS
    assert acted(watch) == []
    assert [f.code for f in watch.findings] == ["nonfinite"]
    assert all(torch.equal(a, b) for a, b in zip(ours.weights, plain.weights, strict=True))


class Broken(Net):
    """Its weights turn into NaN by themselves."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 30:
            with torch.no_grad():
                self.net[0].weight.fill_(torch.nan)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("amp", [False, True])
def test_broken_weights_are_mended(tmp_path: Path, fused: bool, amp: bool) -> None:
    """Under a scaler too, which would lower its scale for ever."""
    spy, watch, _, model = fit(
        tmp_path, [SkipStep(), Rollback()], kind=Broken, make=adam(fused),
        detectors=None, plugins=[scaler()] if amp else [],
    )  # fmt: skip
    assert [a for a in acted(watch) if a[0] == "Rollback"] == [("Rollback", 32)]
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert torch.isfinite(spy.weights[-1]).all()
    if amp:
        assert spy.scales[-1] >= 512.0


def test_a_single_overflow_is_left_to_the_scaler(tmp_path: Path) -> None:
    _, watch, _, _ = fit(
        tmp_path, [Rollback()], make=adam(False), sick=[30], detectors=None,
        plugins=[scaler()],
    )  # fmt: skip
    assert acted(watch) == []


# ------------------------------------------------------------------ explosions


@pytest.mark.parametrize(
    ("found", "back_to"),
    [(3, 0), (9, 0), (13, 0), (21, 10), (25, 10), (31, 20)],
)
def test_it_goes_back_beyond_the_last_ten_steps(tmp_path: Path, found: int, back_to: int) -> None:
    """A snapshot from right before the finding may hold the damage already."""
    spy, watch, _, _ = fit(tmp_path, [Rollback()], detectors=[FindsAt("exploding", [found])])
    assert watch.actions_taken[0].reason.endswith(f"back to the state of step {back_to}")
    if back_to:
        assert torch.equal(spy.weights[found], before(spy, back_to))


def test_snapshots_come_less_often_as_a_run_grows_old(tmp_path: Path) -> None:
    kept = []

    class Told(Rollback):
        def apply(self, findings: Any, training: Any) -> Any:
            record = super().apply(findings, training)
            kept.append([k.snapshot.step for k in self._shelf.kept])
            return record

    fit(tmp_path, [Told(every_n_steps=20)], batches=500)
    steps = sorted({s for k in kept for s in k})
    gaps = [b - a for a, b in pairwise(steps)]
    assert steps[:3] == [0, 10, 20]
    assert gaps == sorted(gaps)
    assert gaps[-1] == 20
    assert max(len(k) for k in kept) == 2


class Killed(Net):
    """All its units die at step 300: it loses what it had learnt, and no gradient explodes."""

    def __init__(self, make: Any, schedule: Any = None) -> None:
        super().__init__(make, schedule)
        self.net[1] = nn.ReLU()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 300:
            with torch.no_grad():
                self.net[0].bias.fill_(-1e3)


def test_the_loss_alone_tells_that_all_is_lost(tmp_path: Path) -> None:
    _, watch, _, _ = fit(
        tmp_path, [Rollback()], kind=Killed, make=adam(False), batches=400, detectors=None
    )
    (record,) = watch.actions_taken
    assert 308 <= record.step <= 316
    assert record.reason.startswith("the loss has risen from ")
    assert int(record.reason.rpartition(" ")[2]) <= 300
    assert watch.history.loss[-1] < 2 * watch.history.loss[290:300].mean()
    _, watch, _, _ = fit(
        tmp_path, [Rollback(watch_loss=False)], kind=Killed, make=adam(False), batches=400
    )
    assert acted(watch) == []


def test_what_ails_the_initial_weights_is_no_reason(tmp_path: Path) -> None:
    class Inborn(FindsAt):
        def update(self, sample: Any) -> list[Finding]:
            there = sample.step in self.steps
            evidence = {"forward_growth": 1e5}
            return [Finding(self.code, Severity.ERROR, (), 0, 0, 1, evidence)] if there else []

    _, watch, _, _ = fit(tmp_path, [Rollback()], detectors=[Inborn("exploding", [0, 1, 2])])
    assert acted(watch) == []


def test_a_symptom_of_many_steps_says_nothing_new_right_after_a_rollback(tmp_path: Path) -> None:
    _, watch, _, _ = fit(
        tmp_path, [Rollback(on=("oscillating",))], batches=120,
        detectors=[FindsAt("oscillating", range(40, 120))],
    )  # fmt: skip
    assert acted(watch) == [("Rollback", 40), ("Rollback", 105)]


def test_detectors_go_back_too(tmp_path: Path) -> None:
    class Counts:
        """Counts its steps; a detector with a state."""

        def __init__(self) -> None:
            self.seen = 0

        def update(self, sample: Any) -> list[Finding]:
            self.seen += 1
            return [Finding("exploding", Severity.ERROR, (), 0, 0)] if sample.step == 30 else []

        def state_dict(self) -> dict[str, int]:
            return {"seen": self.seen}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.seen = state["seen"]

        def reset(self) -> None:
            self.seen = 0

    detector = Counts()
    fit(tmp_path, [Rollback()], detectors=[detector])
    # Eleven steps up to the snapshot of step 10, and 29 after the rollback at step 30.
    assert detector.seen == 11 + 29


# ------------------------------------------------------------------ the learning rate

SCHEDULES: dict[str, Any] = {
    "none": None,
    "StepLR": lambda o: sched.StepLR(o, 7, 0.6),
    "MultiStepLR": lambda o: sched.MultiStepLR(o, [10, 35, 50], 0.5),
    "ExponentialLR": lambda o: sched.ExponentialLR(o, 0.97),
    "MultiplicativeLR": lambda o: sched.MultiplicativeLR(o, lambda e: 0.97 + 0.02 * (e % 2)),
    "ConstantLR": lambda o: sched.ConstantLR(o, 0.5, 40),
    "LinearLR": lambda o: sched.LinearLR(o, 0.1, 1.0, 40),
    "PolynomialLR": lambda o: sched.PolynomialLR(o, 80, 2.0),
    "LambdaLR": lambda o: sched.LambdaLR(o, lambda e: min(1.0, (e + 1) / 5) * 0.98**e),
    "OneCycleLR": lambda o: sched.OneCycleLR(o, RATE, total_steps=STEPS + 1),
    "CosineAnnealingLR": lambda o: sched.CosineAnnealingLR(o, STEPS, eta_min=1e-4),
    "CosineAnnealingWarmRestarts": lambda o: sched.CosineAnnealingWarmRestarts(o, 9, 2, 1e-4),
    "CyclicLR": lambda o: sched.CyclicLR(o, RATE / 4, RATE, 8, cycle_momentum=False),
    "SWALR": lambda o: SWALR(o, swa_lr=RATE / 3, anneal_epochs=50),
    "ChainedScheduler": lambda o: sched.ChainedScheduler(
        [sched.ConstantLR(o, 0.5, 40), sched.ExponentialLR(o, 0.98)]
    ),
    "SequentialLR": lambda o: sched.SequentialLR(
        o, [sched.LinearLR(o), sched.CosineAnnealingLR(o, STEPS)], [20]
    ),
    "SequentialLR into a decay": lambda o: sched.SequentialLR(
        o, [sched.ConstantLR(o, 0.2, 60), sched.StepLR(o, 10, 0.5)], [38]
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_schedule_goes_on_lowered(tmp_path: Path, name: str) -> None:
    plain, _, _, _ = fit(tmp_path, [], schedule=SCHEDULES[name])
    sick = FindsAt("exploding", [30, 45])
    spy, watch, _, _ = fit(tmp_path, [Rollback()], schedule=SCHEDULES[name], detectors=[sick])
    assert acted(watch) == [("Rollback", 30), ("Rollback", 45)]
    # Lowered further the second time where no healthy state came between the two.
    first, second = (record.after / record.before for record in watch.actions_taken)
    assert (first, second) in (pytest.approx((0.5, 0.5)), pytest.approx((0.5, 0.5**1.5)))
    factors = [first ** (s >= 30) * second ** (s >= 45) for s in range(STEPS)]
    assert spy.rates == pytest.approx(
        [rate * f for rate, f in zip(plain.rates, factors, strict=True)], rel=1e-6
    )


def test_a_plateau_goes_on_lowered(tmp_path: Path) -> None:
    """ReduceLROnPlateau decides by a metric, here one that never falls."""

    class Flat(Net):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            self.log("flat", 1.0)
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self) -> Any:
            optimizer = self.make(self.parameters())
            plateau = sched.ReduceLROnPlateau(optimizer, factor=0.5, patience=9, min_lr=RATE / 3)
            how = {"scheduler": plateau, "interval": "step", "monitor": "flat"}
            return {"optimizer": optimizer, "lr_scheduler": how}

    plain, _, _, _ = fit(tmp_path, [], kind=Flat)
    assert plain.rates[-1] == pytest.approx(RATE / 3)
    sick = FindsAt("exploding", [15, 45])
    spy, watch, _, _ = fit(tmp_path, [Rollback()], kind=Flat, detectors=[sick])
    assert acted(watch) == [("Rollback", 15), ("Rollback", 45)]
    factors = [0.5 ** ((s >= 15) + (s >= 45)) for s in range(STEPS)]
    assert spy.rates == pytest.approx(
        [rate * f for rate, f in zip(plain.rates, factors, strict=True)], rel=1e-6
    )


def test_the_same_snapshot_again_lowers_further(tmp_path: Path) -> None:
    spy, _, _, _ = fit(tmp_path, [Rollback()], detectors=[FindsAt("exploding", [30, 33, 36])])
    assert spy.rates[-1] == pytest.approx(RATE * 0.5 ** (1 + 1.5 + 2))


def test_after_max_times_it_gives_up_with_the_healthy_weights_in_place(tmp_path: Path) -> None:
    spy, watch, runner, _ = fit(
        tmp_path, [Rollback(max_times=2)], detectors=[FindsAt("exploding", [30, 33, 36, 40])],

    )  # fmt: skip
    assert acted(watch) == [("Rollback", s) for s in (30, 33, 36)]
    assert "2 rollbacks (max_times) have not helped: training stops" in (
        watch.actions_taken[-1].reason
    )
    assert runner.global_step == 37
    assert torch.equal(spy.weights[-1], before(spy, 10))


# ------------------------------------------------------------------ nothing fires


@pytest.mark.parametrize("make", [sgd, adam(False), adam(True)])
@pytest.mark.parametrize("actions", [lambda: [SkipStep(), Rollback(every_n_steps=5)], rescue])
def test_nothing_to_do_leaves_the_run_bit_identical(
    tmp_path: Path, make: Any, actions: Any
) -> None:
    ours, watch, _, _ = fit(tmp_path, actions(), kind=Normed, make=make, detectors=None)
    plain, _, _, _ = fit(tmp_path, [], kind=Normed, make=make, watch=False)
    assert all(torch.equal(a, b) for a, b in zip(ours.weights, plain.weights, strict=True))
    assert watch.actions_taken == ()


# ------------------------------------------------------------------ checkpoints


@pytest.mark.parametrize("cut", [2, 3, 4])
def test_a_resumed_run_goes_back_as_an_uninterrupted_one(tmp_path: Path, cut: int) -> None:
    """Cut before, between and after the rollbacks, by epoch; the snapshots come along."""

    def run(**more: Any) -> tuple[list[torch.Tensor], list[tuple[str, int]], list[float]]:
        spy, watch, runner, _ = fit(
            tmp_path, [Rollback()], detectors=[FindsAt("exploding", [28, 33])],
            make=adam(False), schedule=SCHEDULES["CosineAnnealingLR"], batches=10, **more,
        )  # fmt: skip
        runner.save_checkpoint(tmp_path / "last.ckpt")
        return spy.weights, acted(watch), spy.rates

    whole, records, rates = run(max_epochs=6)
    first, _, begun = run(max_epochs=cut)
    second, resumed, rest = run(max_epochs=6, ckpt_path=str(tmp_path / "last.ckpt"))
    assert resumed == records == [("Rollback", 28), ("Rollback", 33)]
    assert begun + rest == pytest.approx(rates)
    joined = first + second
    assert all(torch.equal(a, b) for a, b in zip(joined, whole, strict=True))


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_a_run_resumed_in_the_middle_of_a_rescue_goes_on_as_an_uninterrupted_one(
    tmp_path: Path, cut: int
) -> None:
    """All of `rescue()` at work: far too fast from the start, then NaN. Cut at every epoch."""

    class Sick(Normed):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            loss = super().training_step(batch, batch_idx)
            return loss * math.nan if self.current_epoch == 3 and batch_idx < 8 else loss

    def run(**more: Any) -> Any:
        spy, watch, runner, _ = fit(
            tmp_path, rescue(), make=lambda p: torch.optim.Adam(p, 2.0), kind=Sick, batches=10,
            schedule=SCHEDULES["CosineAnnealingLR"], detectors=None, **more,
        )  # fmt: skip
        runner.save_checkpoint(tmp_path / "last.ckpt")
        return spy.weights, [(r.action, r.step, r.reason) for r in watch.actions_taken], spy.rates

    whole, records, rates = run(max_epochs=6)
    assert {action for action, _, _ in records} >= {"SkipStep", "Rollback"}
    first, _, begun = run(max_epochs=cut)
    second, resumed, rest = run(max_epochs=6, ckpt_path=str(tmp_path / "last.ckpt"))
    assert resumed == records
    assert begun + rest == pytest.approx(rates)
    assert all(torch.equal(a, b) for a, b in zip(first + second, whole, strict=True))


def test_without_snapshots_in_the_checkpoint_a_resumed_run_keeps_its_beginning(
    tmp_path: Path,
) -> None:
    def run(**more: Any) -> Any:
        spy, watch, runner, _ = fit(
            tmp_path, [Rollback(in_checkpoint=False)], detectors=[FindsAt("exploding", [28])],
            batches=25, **more,
        )  # fmt: skip
        runner.save_checkpoint(tmp_path / "last.ckpt")
        return spy, watch

    first, _ = run(max_epochs=1)
    second, watch = run(max_epochs=2, ckpt_path=str(tmp_path / "last.ckpt"))
    assert acted(watch) == [("Rollback", 28)]
    assert watch.actions_taken[0].reason.endswith("; back to where it resumed")
    assert torch.equal(second.weights[3], first.weights[-1])


# ------------------------------------------------------------------ several optimizers, ranks


def test_everything_goes_back_and_nothing_of_that_batch_is_used(tmp_path: Path) -> None:
    """Found at the second optimizer of a batch in which the first has stepped already."""

    class AtSecond(FindsAt):
        def update(self, sample: Any) -> list[Finding]:
            return super().update(sample) if sample.optimizer == 1 else []

    detector = AtSecond("exploding", [30])
    spy, watch, runner, _ = fit(tmp_path, [Rollback()], kind=TwoOptimizers, detectors=[detector])
    (record,) = watch.actions_taken
    kept = int(record.reason.rpartition(" ")[2])
    assert 20 <= kept < 30
    assert torch.equal(spy.weights[30], before(spy, kept))
    rates = [o.param_groups[0]["lr"] for o in runner.optimizers]
    assert rates == pytest.approx([RATE, RATE / 2])


# ------------------------------------------------------------------ bad input


def test_snapshots_that_do_not_fit_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "available_memory", lambda: 100)
    with pytest.raises(
        ConfigurationError, match=r"keeps 2 snapshots.*are free: leave Rollback out"
    ):
        fit(tmp_path, [Rollback()])


def test_when_memory_runs_out_later_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([10**9, 10**9] + [10] * 1000)
    monkeypatch.setattr(shelf, "available_memory", lambda: next(free))
    with pytest.warns(GradWatchWarning, match="no more are taken"):
        _, watch, _, _ = fit(tmp_path, [Rollback()], detectors=[FindsAt("exploding", [50])])
    assert watch.actions_taken[0].reason.endswith("back to the state of step 10")


def test_a_parameter_added_since_is_named(tmp_path: Path) -> None:
    class Grows(Net):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            if batch_idx == 28:
                self.net.append(nn.Linear(4, 4))
                self.trainer.optimizers[0].add_param_group({"params": self.net[3].parameters()})

    _, watch, runner, _ = fit(
        tmp_path, [Rollback()], kind=Grows, detectors=[FindsAt("exploding", [30])]
    )
    assert watch.actions_taken[0].reason.endswith(
        "step 10, but not net.3.weight, net.3.bias: added since"
    )
    assert runner.global_step == STEPS


@pytest.mark.parametrize(
    ("arguments", "error", "shown"),
    [
        ({"every_n_steps": 0}, ValueError, ">= 1, got 0"),
        ({"factor": 1.0}, ValueError, "< 1, got 1.0"),
        ({"factor": math.nan}, ValueError, "got nan"),
        ({"max_times": 0}, ValueError, ">= 1, got 0"),
        ({"on": ("nan",)}, ValueError, "'nan'.*Choose from.*nonfinite"),
        ({"watch_loss": 1}, TypeError, "True or False, got 1"),
        ({"in_checkpoint": "yes"}, TypeError, "True or False, got 'yes'"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: dict[str, Any], error: type[Exception], shown: str
) -> None:
    with pytest.raises(error, match=shown):
        Rollback(**arguments)


def test_an_optimizer_without_state_and_a_model_without_buffers(tmp_path: Path) -> None:
    spy, watch, _, _ = fit(
        tmp_path, [Rollback()], make=lambda p: torch.optim.SGD(p, RATE),
        detectors=[FindsAt("exploding", [30])],
    )  # fmt: skip
    assert watch.actions_taken[0].reason.endswith("back to the state of step 10")
    assert torch.equal(spy.weights[30], before(spy, 10))


def test_of_a_run_that_has_learnt_nothing_the_initial_weights_are_kept(tmp_path: Path) -> None:
    """What came since may be dead; a symptom of long standing goes back to them."""

    def stuck(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, 1e-9)

    sick = FindsAt("oscillating", [150])
    on = ("exploding", "oscillating")
    _, watch, _, _ = fit(tmp_path, [Rollback(on=on)], make=stuck, batches=160, detectors=[sick])
    assert watch.actions_taken[0].reason.endswith("back to the state of step 0")
    _, watch, _, _ = fit(
        tmp_path, [Rollback(on=on)], make=stuck, batches=160,
        detectors=[FindsAt("exploding", [150])],
    )  # fmt: skip
    assert int(watch.actions_taken[0].reason.rpartition(" ")[2]) >= 100


def test_symptoms_that_were_there_from_the_beginning_are_no_reason(tmp_path: Path) -> None:
    _, watch, _, _ = fit(
        tmp_path, [Rollback(on=("saturated",))], detectors=[FindsAt("saturated", range(2, 50))]
    )
    assert acted(watch) == []
    _, watch, _, _ = fit(
        tmp_path, [Rollback(on=("saturated",))], detectors=[FindsAt("saturated", [6])]
    )
    assert acted(watch) == [("Rollback", 6)]


def test_a_run_that_gets_nowhere_after_a_rollback_goes_back_once_more(tmp_path: Path) -> None:
    class Dies(Net):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 6:  # a step after the rollback
                with torch.no_grad():
                    self.net[0].weight.zero_()
                    self.net[0].bias.fill_(30.0)  # flat parts of tanh
                    self.net[2].weight.zero_()

    _, watch, runner, _ = fit(
        tmp_path, [Rollback()], kind=Dies, detectors=[FindsAt("exploding", [5])], batches=200,
        make=lambda p: torch.optim.SGD(p, RATE),
    )  # fmt: skip
    assert [s for _, s in acted(watch)] == [5, 50]
    assert "and does not fall; back to the state of step 0" in watch.actions_taken[1].reason
    assert runner.global_step == 200


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_young_run_far_too_fast_is_set_back_as_far_as_its_first_step_was_too_long(
    tmp_path: Path, scale: float
) -> None:
    """Whatever the unit of the loss: Adam's steps do not depend on it."""

    class Scaled(Net):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            return super().training_step(batch, batch_idx) * scale

    def fast(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, 2.0, eps=1e-30)

    _, _, _, model = fit(tmp_path, [], kind=Scaled, make=fast, batches=200, watch=False)
    spy, watch, _, rescued = fit(tmp_path, rescue(), kind=Scaled, make=fast, batches=200)
    first = next(r for r in watch.actions_taken if r.action == "Rollback")
    assert first.step <= 10
    assert first.reason.endswith("back to the state of step 0")
    assert spy.rates[first.step] <= 2.0 / 10
    data = torch.randn(256, 4, generator=torch.Generator().manual_seed(5))
    loss = [float((m.net(data) - data).square().mean()) for m in (model, rescued)]
    assert loss[1] < 0.2 < loss[0]


def test_snapshots_go_with_the_module(tmp_path: Path) -> None:
    """A checkpoint may still be written after the fit; once the module is gone, none can be."""
    action = Rollback()
    everything = fit(tmp_path, [action])
    assert len(action.state_dict()["shelf"]["kept"]) == 2
    del everything
    gc.collect()
    assert action.state_dict()["shelf"]["kept"] == []


def test_lazy_modules_are_kept_once_they_have_a_shape() -> None:
    action = Rollback()
    action.prepare(Trained(nn.LazyLinear(2)))
    assert action.state_dict()["shelf"]["kept"] == []
