"""Several actions at once: their order, what is refused, DDP where one rank sees the bad batch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from torch.utils.data import DataLoader

from lightning_gradwatch import GradientWatcher, GradWatch, GradWatchWarning
from lightning_gradwatch.actions import (
    AdaptiveClip,
    AutoClip,
    ClipGradNorm,
    ClipGradValue,
    DecayLR,
    Rollback,
    SaveBatch,
    SkipStep,
    StopTraining,
    ZClip,
    load_batch,
    rescue,
)
from lightning_gradwatch.errors import ConfigurationError
from tests.actions.steps import EXPLODING, NONFINITE, parameters_with, training_for
from tests.actions.test_in_trainer import FindsAt, FindsNonfinite, Keep, Net, fit
from tests.actions.test_rollback import fit as gentle_fit
from tests.actions.test_rollback import sgd

torch.set_num_threads(1)
CLIPS = [ClipGradNorm(1.0), ClipGradValue(0.125), AdaptiveClip(exclude=()), ZClip(max_norm=0.5)]


# ------------------------------------------------------------------ order


@pytest.mark.parametrize("second", CLIPS, ids=repr)
@pytest.mark.parametrize("first", CLIPS, ids=repr)
def test_of_two_clips_both_limits_hold(first: Any, second: Any) -> None:
    parameters = parameters_with([torch.full((3, 2), 4.0), torch.full((2,), 0.5)])
    training = training_for(torch.optim.SGD(parameters, 0.1))
    before = [p.grad.clone() for p in parameters]
    for action in (first, second):
        action.apply([], training)
    for action in (first, second):  # neither has anything left to do
        assert action.apply([], training) is None
    for old, p in zip(before, parameters, strict=True):
        assert (p.grad.abs() <= old.abs()).all()


@pytest.mark.parametrize("clip", [*CLIPS, AutoClip(0)], ids=repr)
def test_after_a_skip_no_clip_acts_or_learns(clip: Any) -> None:
    parameters = parameters_with([torch.full((3, 2), 4.0)])
    training = training_for(torch.optim.SGD(parameters, 0.1))
    states = [clip.state_dict()] if hasattr(clip, "state_dict") else []
    SkipStep().apply(NONFINITE, training)
    assert clip.apply([], training) is None
    assert states == ([clip.state_dict()] if states else [])


def test_after_a_rollback_no_clip_acts_or_learns() -> None:
    parameters = parameters_with([torch.full((3, 2), 4.0)])
    optimizer = torch.optim.SGD(parameters, 0.1)
    back, clip = Rollback(), AutoClip()
    back.apply([], training_for(optimizer, epoch=0, batch_idx=0))
    training = training_for(optimizer, step=1, batch_idx=1)
    assert back.apply(EXPLODING, training) is not None
    assert training.skipped
    assert clip.apply([], training) is None


def test_a_clip_before_rollback_changes_nothing_for_it(tmp_path: Path) -> None:
    detector = FindsAt("exploding", [30])
    one, _, _, _ = gentle_fit(tmp_path, [ClipGradNorm(0.5), Rollback()], detectors=[detector])
    two, _, _, _ = gentle_fit(tmp_path, [Rollback(), ClipGradNorm(0.5)], detectors=[detector])
    assert all(torch.equal(a, b) for a, b in zip(one.weights, two.weights, strict=True))


def test_the_batch_is_saved_wherever_it_stands(tmp_path: Path) -> None:
    for place in (0, 2):
        folder = tmp_path / str(place)
        actions: list[Any] = [SkipStep(), Rollback()]
        actions.insert(place, SaveBatch(folder=str(folder)))
        gentle_fit(tmp_path, actions, detectors=[FindsNonfinite()], sick=[5])
        assert [p.name for p in folder.iterdir()] == ["step5_batch5_rank0.pt"]


# ------------------------------------------------------------------ the ready list


def test_the_ready_list_leaves_a_healthy_run_almost_alone(tmp_path: Path) -> None:
    _, watch, _, _ = gentle_fit(tmp_path, rescue(), batches=100, detectors=None)
    assert {r.action for r in watch.actions_taken} <= {"ZClip"}


def test_every_call_returns_objects_of_its_own() -> None:
    first, second = rescue(), rescue()
    assert repr(first) == repr(second)
    assert not {id(a) for a in first} & {id(a) for a in second}
    GradWatch(actions=first)


def test_lbfgs_acts_once_a_step_and_goes_back(tmp_path: Path) -> None:
    spy, watch, runner, _ = gentle_fit(
        tmp_path, [SkipStep(), Rollback()], batches=40, sick=[35],
        make=lambda p: torch.optim.LBFGS(p, lr=0.01, max_iter=3),
        detectors=[FindsAt("exploding", [30]), FindsNonfinite()],
    )  # fmt: skip
    assert [(r.action, r.step) for r in watch.actions_taken] == [("Rollback", 30), ("SkipStep", 35)]
    kept = int(watch.actions_taken[0].reason.rpartition(" ")[2])
    assert torch.equal(spy.weights[30], spy.weights[kept - 1])
    assert torch.equal(spy.weights[35], spy.weights[34])
    assert runner.global_step == 40
    assert torch.isfinite(spy.weights[-1]).all()


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "make", [GradWatch, lambda **a: GradientWatcher(torch.nn.Linear(1, 1), **a)]
)
@pytest.mark.parametrize(
    ("actions", "shown"),
    [
        ([Rollback(), Rollback(on=("spike",))], "2 Rollbacks.*'exploding', 'nonfinite', 'spike'"),
        ([Rollback(), StopTraining()], "ends training on 'exploding', which Rollback"),
        ([CLIPS[0], CLIPS[0]], "ClipGradNorm.* is there twice"),
    ],
)
def test_conflicts_are_refused_at_once(make: Any, actions: list[Any], shown: str) -> None:
    with pytest.raises(ValueError, match=shown):
        make(actions=actions)


@pytest.mark.parametrize(
    ("actions", "shown"),
    [
        ([Rollback(), DecayLR()], "both lower the learning rate on 'exploding'"),
        ([Rollback(), SkipStep()], "Put SkipStep first"),
        ([SkipStep(max_consecutive=2), Rollback()], "max_consecutive=3 or more"),
    ],
)
def test_what_keeps_another_from_its_work_is_said(actions: list[Any], shown: str) -> None:
    with pytest.warns(GradWatchWarning, match=shown):
        GradWatch(actions=actions)


def test_what_goes_together_is_not_remarked_on() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradWatch(actions=rescue())
        GradWatch(actions=[SkipStep(), ClipGradNorm(1), DecayLR(), StopTraining(), SaveBatch()])
        GradWatch(actions=[Rollback(on=("exploding",)), StopTraining(on=("nonfinite",))])


class DeepSpeedStrategy(SingleDeviceStrategy):
    """Has the name of the one that cannot be run here."""


@pytest.mark.parametrize("action", [*CLIPS, AutoClip(), SkipStep(), DecayLR(), Rollback()])
def test_deepspeed_is_refused_when_the_fit_starts(tmp_path: Path, action: Any) -> None:
    name = type(action).__name__
    with pytest.raises(ConfigurationError, match=f"{name} cannot act here: DeepSpeed.*FSDP2"):
        fit(tmp_path, [action], strategy=DeepSpeedStrategy("cpu"))


def test_what_only_stands_by_may_stay_under_deepspeed(tmp_path: Path) -> None:
    _, _, runner, _ = fit(
        tmp_path, [StopTraining(), SaveBatch()], strategy=DeepSpeedStrategy("cpu")
    )
    assert runner.global_step == 8


# ------------------------------------------------------------------ several devices


class Shards(torch.utils.data.IterableDataset[torch.Tensor]):
    """Batches of each rank's own; those of rank 1 are sick at chosen steps."""

    def __init__(self, poison: float, steps: tuple[int, ...]) -> None:
        self.poison, self.steps = poison, steps

    def __iter__(self) -> Iterator[torch.Tensor]:
        rank = torch.distributed.get_rank()
        generator = torch.Generator().manual_seed(rank)
        for step in range(50):
            batch = torch.randn(4, 4, generator=generator)
            yield batch * self.poison if rank == 1 and step in self.steps else batch


class Keeps(Keep):
    """Also keeps the buffers, and what was gone back to."""

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_end(trainer, pl_module)
        told = [r.reason.rpartition("; ")[2] for r in self.watch.actions_taken]
        torch.save(told, self.folder / f"told{trainer.global_rank}.pt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("poison", "steps"), [(math.nan, tuple(range(20, 27))), (1e7, (25,))], ids=["NaN", "large"]
)
def test_a_bad_batch_on_one_rank_is_survived_by_both(
    tmp_path: Path, poison: float, steps: tuple[int, ...]
) -> None:
    folder = str(tmp_path / "batches")
    actions = [SaveBatch(on=("nonfinite", "spike"), folder=folder), SkipStep(), Rollback()]
    watch = GradWatch(actions=actions, reporters=(), record=False)
    runner = pl.Trainer(
        callbacks=[watch, Keeps(tmp_path, watch)],
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
    runner.fit(Net(sgd, None), DataLoader(Shards(poison, steps), batch_size=None))
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True))
    assert all(torch.isfinite(w).all() for w in first[0])
    assert first[1:] == second[1:]
    acted = [a for a in first[2] if a[0] == "Rollback"]
    assert len(acted) == 1, first[2]
    assert steps[0] <= acted[0][1] <= steps[0] + 8
    told = [torch.load(tmp_path / f"told{rank}.pt")[-1] for rank in range(2)]
    assert told[0] == told[1]
    # Rank 1 has the sick batch, and it is among those that were kept.
    kept = [load_batch(p) for p in Path(folder).glob(f"step{steps[0]}_*_rank1.pt")]
    assert len(kept) == 1
    assert not bool((kept[0].batch.abs() < 100).all())
