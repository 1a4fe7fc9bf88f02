"""The actions in real fits: with the Trainer's clipping, schedulers, scalers, two optimizers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.optim import lr_scheduler as sched
from torch.utils.data import DataLoader

from lightning_gradwatch import GradWatch
from lightning_gradwatch.actions import (
    ClipGradNorm,
    ClipGradValue,
    DecayLR,
    SkipStep,
    StopTraining,
)
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.sample import Sample
from tests.actions.steps import finding, reference_norm
from tests.trainer.models import scaler_plugin as scaler

SICK_BATCH = 3


class FindsAt:
    """Says `code` at given steps, whatever the gradients are."""

    def __init__(self, code: str, steps: Sequence[int]) -> None:
        self.code, self.steps = code, steps

    def update(self, sample: Sample) -> list[Finding]:
        return [finding(self.code, sample.step)] if sample.step in self.steps else []


class FindsNonfinite:
    """Says `nonfinite` when the sample shows it."""

    def update(self, sample: Sample) -> list[Finding]:
        return [finding("nonfinite", sample.step)] if sample.nonfinite.any() else []


class Spy(pl.Callback):
    """What each optimizer step really used, and what became of the weights."""

    def __init__(self) -> None:
        self.used: list[float] = []
        self.top: list[float] = []
        self.weights: list[torch.Tensor] = []
        self.rates: list[float] = []
        self.scales: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(self._stepped)

    def _stepped(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [p for g in optimizer.param_groups for p in g["params"]]
        self.used.append(reference_norm(parameters))
        self.top.append(reference_norm(parameters, math.inf))
        self.rates.append(float(optimizer.param_groups[0]["lr"]))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        flat = [p.detach().reshape(-1) for p in pl_module.parameters()]
        self.weights.append(torch.cat(flat).clone())
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.scales.append(scaler.get_scale() if scaler else 1.0)


class Net(pl.LightningModule):
    """Learns to give back its input; a batch that holds NaN poisons its gradients."""

    def __init__(self, make: Callable[..., Any], schedule: Callable[..., Any] | None) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))
        self.make, self.schedule = make, schedule

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.net(batch) - batch).square().mean() * 10

    def configure_optimizers(self) -> Any:
        optimizer = self.make(self.parameters())
        if self.schedule is None:
            return optimizer
        scheduler = {"scheduler": self.schedule(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class OwnClipping(Net):
    """Clips as the documentation of Lightning shows it."""

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=0.2, gradient_clip_algorithm="norm")


class Picky(Net):
    """Returns None for the last micro-batch of an accumulation window."""

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
        return None if batch_idx == 3 else super().training_step(batch, batch_idx)


class TwoOptimizers(Net):
    """Manual optimization: two networks, each with an optimizer of its own."""

    def __init__(self, make: Callable[..., Any], schedule: Any = None) -> None:
        super().__init__(make, schedule)
        self.other = nn.Linear(4, 4)
        self.automatic_optimization = False

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        for optimizer, net in zip(self.optimizers(), (self.net, self.other), strict=True):
            data = batch.nan_to_num() if net is self.other else batch
            optimizer.zero_grad()
            self.manual_backward((net(data) - data).square().mean() * 10)
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [self.make(self.net.parameters()), self.make(self.other.parameters())]


def sgd(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)


def adam(fused: bool) -> Callable[..., torch.optim.Optimizer]:
    return lambda parameters: torch.optim.AdamW(parameters, lr=0.01, fused=fused)


def fit(
    tmp_path: Path,
    actions: Sequence[Any],
    *,
    kind: type[Net] = Net,
    make: Callable[..., Any] = sgd,
    schedule: Callable[..., Any] | None = None,
    detectors: Sequence[Any] | None = (),
    sick: Sequence[int] = (),
    batches: int = 8,
    ckpt_path: str | None = None,
    watch: bool = True,
    **trainer: Any,
) -> tuple[Spy, GradWatch, pl.Trainer, Net]:
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(batches, 4, 4, generator=generator)
    for i in sick:
        data[i, 0, 0] = torch.nan
    torch.manual_seed(2)
    model, spy = kind(make, schedule), Spy()
    gradwatch = GradWatch(actions=actions, detectors=detectors, reporters=(), record=False)
    settings = {"max_epochs": 1, "accelerator": "cpu", "logger": False} | trainer
    runner = pl.Trainer(
        callbacks=[gradwatch, spy] if watch else [spy],
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **settings,
    )
    runner.fit(model, DataLoader(data, batch_size=None), ckpt_path=ckpt_path)
    return spy, gradwatch, runner, model


# ------------------------------------------------------------------ non-finite gradients


def test_a_nan_batch_is_as_if_it_had_not_been_drawn(tmp_path: Path) -> None:
    spy, watch, _, _ = fit(
        tmp_path, [SkipStep()], detectors=[FindsNonfinite()], sick=[SICK_BATCH], make=adam(False)
    )
    assert torch.equal(spy.weights[SICK_BATCH], spy.weights[SICK_BATCH - 1])
    assert torch.isfinite(spy.weights[-1]).all()
    assert not torch.equal(spy.weights[-1], spy.weights[SICK_BATCH])
    assert [(r.action, r.step) for r in watch.actions_taken] == [("SkipStep", SICK_BATCH)]
    poisoned, _, _, _ = fit(tmp_path, [], sick=[SICK_BATCH])
    assert poisoned.weights[-1].isnan().any()


def test_of_an_accumulation_window_the_whole_step_is_skipped(tmp_path: Path) -> None:
    spy, watch, _, _ = fit(
        tmp_path,
        [SkipStep()],
        detectors=[FindsNonfinite()],
        sick=[2],
        accumulate_grad_batches=2,
    )
    assert [r.step for r in watch.actions_taken] == [1]
    assert torch.equal(spy.weights[3], spy.weights[1])
    assert torch.isfinite(spy.weights[-1]).all()
    assert not torch.equal(spy.weights[5], spy.weights[3])


def test_in_manual_optimization_only_the_sick_optimizer_skips(tmp_path: Path) -> None:
    spy, watch, _, model = fit(
        tmp_path,
        [SkipStep()],
        kind=TwoOptimizers,
        detectors=[FindsNonfinite()],
        sick=[SICK_BATCH],
    )
    inner = sum(p.numel() for p in model.net.parameters())
    before, after = spy.weights[SICK_BATCH - 1], spy.weights[SICK_BATCH]
    assert torch.equal(before[:inner], after[:inner])
    assert not torch.equal(before[inner:], after[inner:])
    assert len(watch.actions_taken) == 1
    assert torch.isfinite(spy.weights[-1]).all()


@pytest.mark.parametrize("fused", [False, True])
def test_an_overflow_is_left_to_the_scaler(tmp_path: Path, fused: bool) -> None:
    actions = [SkipStep(max_consecutive=1), ClipGradNorm(0.1), DecayLR(on=("nonfinite",))]
    spy, watch, runner, _ = fit(
        tmp_path,
        actions,
        make=adam(fused),
        detectors=[FindsNonfinite()],
        sick=[SICK_BATCH],
        plugins=[scaler()],
    )
    assert spy.scales[SICK_BATCH - 1 : SICK_BATCH + 1] == [1024.0, 512.0]
    assert torch.equal(spy.weights[SICK_BATCH], spy.weights[SICK_BATCH - 1])
    assert {r.action for r in watch.actions_taken} == {"ClipGradNorm"}
    assert SICK_BATCH not in [r.step for r in watch.actions_taken]
    assert runner.global_step == 8


@pytest.mark.parametrize("fused", [False, True])
def test_a_finite_step_is_skipped_under_a_scaler(tmp_path: Path, fused: bool) -> None:
    spy, watch, runner, _ = fit(
        tmp_path,
        [SkipStep(on=("exploding",))],
        make=adam(fused),
        detectors=[FindsAt("exploding", [SICK_BATCH])],
        plugins=[scaler()],
    )
    assert torch.equal(spy.weights[SICK_BATCH], spy.weights[SICK_BATCH - 1])
    assert not torch.equal(spy.weights[SICK_BATCH + 1], spy.weights[SICK_BATCH])
    assert set(spy.scales) == {1024.0}
    assert [r.step for r in watch.actions_taken] == [SICK_BATCH]
    counts = {float(s["step"]) for s in runner.optimizers[0].state.values()}
    assert counts == {7.0}


def test_a_dead_run_is_stopped_and_keeps_its_last_good_weights(tmp_path: Path) -> None:
    spy, watch, runner, _ = fit(
        tmp_path,
        [SkipStep(max_consecutive=2)],
        detectors=[FindsNonfinite()],
        sick=[3, 4, 5, 6, 7],
    )
    assert runner.global_step == 5
    assert torch.equal(spy.weights[-1], spy.weights[2])
    assert "2 steps skipped in a row" in watch.actions_taken[-1].reason


# ------------------------------------------------------------------ clipping


@pytest.mark.parametrize(("ours", "theirs"), [(0.5, 0.1), (0.1, 0.5), (0.1, None)])
def test_of_our_clipping_and_the_trainers_the_tighter_holds(
    tmp_path: Path, ours: float, theirs: float | None
) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*clips at least as tightly.*")
        spy, watch, _, _ = fit(tmp_path, [ClipGradNorm(ours)], gradient_clip_val=theirs)
    limit = min(ours, theirs or ours)
    assert spy.used == pytest.approx([limit] * 8, rel=1e-4)
    assert [r.after for r in watch.actions_taken] == [ours] * 8
    assert watch.history.global_norm.min() > 1.0
    assert watch.history.clipped_norm == pytest.approx([limit] * 8, rel=1e-4)


def test_clipping_by_value_composes_with_the_trainers(tmp_path: Path) -> None:
    spy, watch, _, _ = fit(
        tmp_path,
        [ClipGradValue(0.2)],
        gradient_clip_val=0.1,
        gradient_clip_algorithm="value",
    )
    assert spy.top == pytest.approx([0.1] * 8)
    assert [r.after for r in watch.actions_taken] == [0.2] * 8


@pytest.mark.parametrize(("ours", "limit"), [(0.1, 0.1), (0.5, 0.2)])
def test_a_users_own_clipping_comes_after_ours(tmp_path: Path, ours: float, limit: float) -> None:
    spy, _, _, _ = fit(tmp_path, [ClipGradNorm(ours)], kind=OwnClipping)
    assert spy.used == pytest.approx([limit] * 8, rel=1e-4)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_clipping_under_a_scaler(tmp_path: Path, fused: bool, accumulate: int) -> None:
    spy, watch, _, _ = fit(
        tmp_path,
        [ClipGradNorm(0.1)],
        make=adam(fused),
        plugins=[scaler()],
        accumulate_grad_batches=accumulate,
    )
    assert spy.used == pytest.approx([0.1] * (8 // accumulate), rel=1e-4)
    assert set(spy.scales) == {1024.0}
    assert all(r.before < 50 for r in watch.actions_taken)  # without the scale of 1024


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_lightning_does_not_make_is_not_acted_on(tmp_path: Path, fused: bool) -> None:
    """With a scaler and None from training_step: unscaling would break the next window."""
    spy, watch, _, _ = fit(
        tmp_path,
        [ClipGradNorm(0.1)],
        kind=Picky,
        make=adam(fused),
        plugins=[scaler()],
        accumulate_grad_batches=2,
    )
    assert [r.step for r in watch.actions_taken] == [0, 2, 3]
    assert spy.used == pytest.approx([0.1] * 3, rel=1e-4)


def test_each_of_two_optimizers_is_clipped_by_itself(tmp_path: Path) -> None:
    spy, watch, _, _ = fit(tmp_path, [ClipGradNorm(0.1)], kind=TwoOptimizers)
    assert spy.used == pytest.approx([0.1] * 16, rel=1e-4)
    assert len(watch.actions_taken) == 16


def test_limits_that_are_never_reached_leave_the_run_bit_identical(tmp_path: Path) -> None:
    actions = [ClipGradNorm(1e6), ClipGradValue(1e6), DecayLR(), SkipStep(), StopTraining()]
    ours, watch, _, _ = fit(tmp_path, actions, make=adam(False))
    plain, _, _, _ = fit(tmp_path, [], make=adam(False), watch=False)
    assert all(torch.equal(a, b) for a, b in zip(ours.weights, plain.weights, strict=True))
    assert watch.actions_taken == ()


# ------------------------------------------------------------------ learning rate

SCHEDULES: dict[str, Callable[..., Any]] = {
    "LambdaLR": lambda o: sched.LambdaLR(o, lambda e: min(1.0, (e + 1) / 5) * 0.98**e),
    "OneCycleLR": lambda o: sched.OneCycleLR(o, 0.2, total_steps=16),
    "CosineAnnealingLR": lambda o: sched.CosineAnnealingLR(o, 16, eta_min=1e-3),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_schedule_stays_lowered_also_through_a_checkpoint(tmp_path: Path, name: str) -> None:
    def run(detectors: Sequence[Any], epochs: int, **more: Any) -> tuple[list[float], Any]:
        spy, watch, runner, _ = fit(
            tmp_path,
            [DecayLR(0.5, cooldown=6)],
            schedule=SCHEDULES[name],
            detectors=detectors,
            max_epochs=epochs,
            **more,
        )
        runner.save_checkpoint(tmp_path / "last.ckpt")
        return spy.rates, [(r.step, r.action) for r in watch.actions_taken]

    plain, _ = run([], 2)
    sick = FindsAt("exploding", [2, 5, 9, 10, 12])
    whole, acted = run([sick], 2)
    wanted = [rate * 0.5 ** ((step >= 2) + (step >= 9)) for step, rate in enumerate(plain)]
    assert whole == pytest.approx(wanted, rel=1e-6)
    assert acted == [(2, "DecayLR"), (9, "DecayLR")]

    first, _ = run([sick], 1)
    second, acted = run([sick], 2, ckpt_path=str(tmp_path / "last.ckpt"))
    assert first + second == pytest.approx(wanted, rel=1e-6)
    assert (9, "DecayLR") in acted


# ------------------------------------------------------------------ stopping


def test_training_stops_after_the_step_with_the_finding(tmp_path: Path) -> None:
    _, watch, runner, _ = fit(
        tmp_path, [StopTraining()], detectors=[FindsAt("exploding", [4])], max_epochs=5
    )
    assert runner.global_step == 5
    assert runner.current_epoch == 1
    assert [(r.action, r.step) for r in watch.actions_taken] == [("StopTraining", 4)]


def test_min_epochs_are_honoured(tmp_path: Path) -> None:
    _, _, runner, _ = fit(
        tmp_path,
        [StopTraining()],
        detectors=[FindsAt("exploding", [4])],
        min_epochs=2,
        max_epochs=5,
    )
    assert runner.global_step == 16


def test_skip_before_stop_keeps_the_weights(tmp_path: Path) -> None:
    spy, watch, _, _ = fit(
        tmp_path,
        [SkipStep(), StopTraining()],
        detectors=[FindsNonfinite()],
        sick=[SICK_BATCH],
    )
    assert [r.action for r in watch.actions_taken] == ["SkipStep", "StopTraining"]
    assert len(spy.weights) == SICK_BATCH + 1
    assert torch.equal(spy.weights[-1], spy.weights[-2])


# ------------------------------------------------------------------ several devices


class OnlyOnRankOne(FindsAt):
    """What one rank sees and the other does not."""

    def update(self, sample: Sample) -> list[Finding]:
        return super().update(sample) if torch.distributed.get_rank() == 1 else []


class Keep(pl.Callback):
    """Writes what each rank ended with: nothing comes back from a forked process."""

    def __init__(self, folder: Path, watch: GradWatch) -> None:
        self.folder, self.watch = folder, watch

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        weights = [p.detach().clone() for p in pl_module.parameters()]
        acted = [(r.action, r.step) for r in self.watch.actions_taken]
        torch.save(
            [weights, rate, acted, trainer.global_step],
            self.folder / f"rank{trainer.global_rank}.pt",
        )


def test_ranks_act_together_on_what_one_of_them_sees(tmp_path: Path) -> None:
    watch = GradWatch(
        actions=[
            SkipStep(on=("spike",)),
            DecayLR(cooldown=0),
            ClipGradNorm(0.5),
            StopTraining(on=("nonfinite",)),
        ],
        detectors=[
            OnlyOnRankOne("spike", [2]),
            OnlyOnRankOne("exploding", [1, 3]),
            OnlyOnRankOne("nonfinite", [5]),
        ],
        reporters=(),
        record=False,
    )
    data = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    runner = pl.Trainer(
        callbacks=[watch, Keep(tmp_path, watch)],
        default_root_dir=tmp_path,
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(start_method="fork", timeout=timedelta(seconds=60)),
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    runner.fit(Net(sgd, None), DataLoader(data, batch_size=2))
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True))
    assert first[1:] == second[1:]
    _, rate, acted, steps = first
    assert rate == pytest.approx(0.025)
    assert [a for a in acted if a[0] != "ClipGradNorm"] == [
        ("DecayLR", 1),
        ("SkipStep", 2),
        ("DecayLR", 3),
        ("StopTraining", 5),
    ]
    assert steps == 6
