"""SaveBatch: the offending batch comes back from disk, and can be run again."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from lightning_gradwatch import GradientWatcher, GradWatch, GradWatchWarning
from lightning_gradwatch.actions import SaveBatch, SkipStep, load_batch
from lightning_gradwatch.actions.batch_file import save_batch
from lightning_gradwatch.culprit.batches import Kept
from tests.actions.steps import NONFINITE, training_for
from tests.actions.test_in_trainer import (
    FindsAt,
    FindsNonfinite,
    Net,
    TwoOptimizers,
    adam,
    fit,
    scaler,
)

torch.set_num_threads(1)


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ------------------------------------------------------------------ what is written


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_batch_comes_back_as_it_was(tmp_path: Path, poison: float) -> None:
    batch = {
        "x": torch.tensor([poison, 1.0]),
        "ids": [torch.tensor([1, 2]), "text", 3, None],
        "pair": (torch.ones(2, dtype=torch.bfloat16), True),
        "array": np.arange(3),
        4: torch.ones(1, 2).to_sparse(),
    }
    save_batch(tmp_path / "b.pt", Kept.of(batch, 7), epoch=1, step=42, rank=3, reason="why")
    saved = load_batch(tmp_path / "b.pt")
    assert (saved.batch_idx, saved.epoch, saved.step, saved.rank) == (7, 1, 42, 3)
    assert saved.reason == "why"
    assert torch.equal(saved.batch["x"], batch["x"]) or math.isnan(poison)
    assert saved.batch["ids"][1:] == ["text", 3, None]
    assert isinstance(saved.batch["pair"], tuple)
    assert saved.batch["pair"][0].dtype == torch.bfloat16
    assert saved.batch["array"].tolist() == [0, 1, 2]
    assert torch.equal(saved.batch[4].to_dense(), torch.ones(1, 2))
    assert saved.left_out == ()
    assert files(tmp_path) == ["b.pt"]


@dataclass
class Graph:
    nodes: torch.Tensor
    name: str
    opener: Any


class Own:
    def __init__(self) -> None:
        self.x = torch.ones(2)


def test_what_cannot_be_saved_is_named(tmp_path: Path) -> None:
    batch = [Graph(torch.ones(1), "g", open), Own(), {1, 2}, np.array(["a"], dtype=object)]
    left_out = save_batch(tmp_path / "b.pt", Kept.of(batch, 0), epoch=0, step=0)
    saved = load_batch(tmp_path / "b.pt")
    assert saved.left_out == left_out
    assert saved.batch[0] == {"nodes": torch.ones(1), "name": "g", "opener": None}
    assert torch.equal(saved.batch[1]["x"], torch.ones(2))
    for part in ("batch[0].opener: builtin", "batch[1]: class Own", "batch[2]: set", "batch[3]"):
        assert any(told.startswith(part) for told in left_out), part


def test_a_slice_is_written_without_what_lies_behind_it(tmp_path: Path) -> None:
    everything = torch.zeros(1_000_000)
    save_batch(tmp_path / "b.pt", Kept.of(everything[:10], 0), epoch=0, step=0)
    assert (tmp_path / "b.pt").stat().st_size < 20_000


def test_random_states_bring_the_same_dropout_back(tmp_path: Path) -> None:
    torch.manual_seed(3)
    random.seed(3)
    kept = Kept.of(torch.ones(8), 0)
    seen = (nn.functional.dropout(kept.batch), random.random())
    save_batch(tmp_path / "b.pt", kept, epoch=0, step=0)
    saved = load_batch(tmp_path / "b.pt")
    saved.restore_random_states()
    again = (nn.functional.dropout(saved.batch), random.random())
    assert torch.equal(seen[0], again[0])
    assert seen[1] == again[1]


def test_what_is_no_saved_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="SaveBatch names its files"):
        load_batch(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"a": 1}, tmp_path / "other.pt")
    for name in ("text.pt", "other.pt"):
        with pytest.raises(ValueError, match="is not a batch that"):
            load_batch(str(tmp_path / name))


# ------------------------------------------------------------------ in a fit


def test_the_sick_batch_is_next_to_the_recording(tmp_path: Path) -> None:
    watch = GradWatch(actions=[SaveBatch(), SkipStep()])
    data = torch.ones(8, 4, 4)
    data[3] = math.nan
    Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[watch], enable_progress_bar=False,
        logger=CSVLogger(tmp_path, name="run", version=0), enable_checkpointing=False,
        enable_model_summary=False,
    ).fit(Net(adam(False), None), DataLoader(data, batch_size=None))  # fmt: skip
    folder = tmp_path / "run" / "version_0" / "gradwatch" / "batches"
    assert files(folder) == ["step3_batch3_rank0.pt"]
    assert [r.action for r in watch.actions_taken] == ["SaveBatch", "SkipStep"]


def test_without_a_local_folder_it_says_so_before_the_first_step(tmp_path: Path) -> None:
    """A remote log directory gives none either; said once, with what to do."""
    with pytest.warns(GradWatchWarning, match="local directory. Give SaveBatch a folder=") as said:
        fit(tmp_path, [SaveBatch(), SkipStep()], sick=[3], detectors=[FindsNonfinite()])
    assert len([w for w in said if "SaveBatch" in str(w.message)]) == 1


@pytest.mark.parametrize("amp", [False, True])
def test_what_is_saved_shows_the_same_loss_again(tmp_path: Path, amp: bool) -> None:
    folder = tmp_path / "kept"
    _, watch, _, model = fit(
        tmp_path, [SaveBatch(folder=str(folder)), SkipStep()], detectors=None, sick=[3],
        plugins=[scaler()] if amp else [], make=adam(False),
    )  # fmt: skip
    assert files(folder) == ["step3_batch3_rank0.pt"]
    assert f"batch 3 is in {folder / 'step3_batch3_rank0.pt'}" in watch.actions_taken[0].reason
    saved = load_batch(folder / "step3_batch3_rank0.pt")
    assert saved.batch[0, 0].isnan()
    assert saved.reason.startswith("nonfinite: ")
    assert model.training_step(saved.batch, saved.batch_idx).isnan()


def test_of_an_accumulation_window_the_guilty_one_is_saved(tmp_path: Path) -> None:
    fit(
        tmp_path, [SaveBatch(folder=str(tmp_path / "a")), SkipStep()], sick=[2],
        detectors=[FindsNonfinite()], accumulate_grad_batches=4,
    )  # fmt: skip
    assert files(tmp_path / "a") == ["step0_batch2_rank0.pt"]
    fit(
        tmp_path, [SaveBatch(folder=str(tmp_path / "b"))], detectors=[FindsAt("exploding", [1])],
        accumulate_grad_batches=4,
    )  # fmt: skip
    assert files(tmp_path / "b") == [f"step1_batch{i}_rank0.pt" for i in (4, 5, 6, 7)]


def test_in_manual_optimization(tmp_path: Path) -> None:
    fit(
        tmp_path, [SaveBatch(folder=str(tmp_path / "a")), SkipStep()], sick=[3],
        kind=TwoOptimizers, detectors=[FindsNonfinite()],
    )  # fmt: skip
    assert files(tmp_path / "a") == ["step3_batch3_rank0.pt"]


def test_no_more_than_max_batches_are_written(tmp_path: Path) -> None:
    _, watch, _, _ = fit(
        tmp_path, [SaveBatch(folder=str(tmp_path / "a"), max_batches=2)],
        detectors=[FindsAt("spike", [1, 2, 3, 4])],
    )  # fmt: skip
    assert files(tmp_path / "a") == ["step1_batch1_rank0.pt", "step2_batch2_rank0.pt"]
    assert len(watch.actions_taken) == 2


def test_a_batch_that_is_too_large_is_named_and_not_written(tmp_path: Path) -> None:
    _, watch, _, _ = fit(
        tmp_path, [SaveBatch(folder=str(tmp_path / "a"), max_mb=1e-6)],
        detectors=[FindsAt("spike", [1])],
    )  # fmt: skip
    assert "batch 1 is not saved: 6.4e-05 MB, above max_mb 1e-06" in watch.actions_taken[0].reason
    assert not (tmp_path / "a").exists()


def test_a_batch_that_training_step_changes_is_told(tmp_path: Path) -> None:
    class Changes(Net):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
            return super().training_step(batch.mul_(2), batch_idx)

    _, watch, _, _ = fit(
        tmp_path, [SaveBatch(folder=str(tmp_path / "a"))], kind=Changes,
        detectors=[FindsAt("spike", [1])],
    )  # fmt: skip
    assert "as training_step left it" in watch.actions_taken[0].reason


def test_nowhere_to_write_to_is_said_once(tmp_path: Path) -> None:
    with pytest.warns(GradWatchWarning, match="Give SaveBatch a folder=") as told:
        _, watch, _, _ = fit(tmp_path, [SaveBatch()], detectors=[FindsAt("spike", [1, 2])])
    assert len([w for w in told if "SaveBatch" in str(w.message)]) == 1
    assert watch.actions_taken == ()


def test_a_disk_that_is_full_ends_no_run(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(GradWatchWarning, match="SaveBatch failed with OSError: No space left"):
        _, _, runner, _ = fit(
            tmp_path, [SaveBatch(folder=str(tmp_path / "a"))], detectors=[FindsAt("spike", [1])]
        )
    assert runner.global_step == 8


def test_in_a_loop_of_ones_own(tmp_path: Path) -> None:
    net = nn.Linear(2, 1)
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    actions = [SaveBatch(folder=str(tmp_path / "a")), SkipStep()]
    with GradientWatcher(net, sgd, actions=actions, reporters=[]) as watcher:
        for step in range(4):
            batch = torch.full((3, 2), math.nan if step == 2 else 1.0)
            sgd.zero_grad()
            loss = net(batch).square().mean()
            loss.backward()
            watcher.step(loss=loss, batch=batch)
            sgd.step()
    assert files(tmp_path / "a") == ["step2_batch2_rank0.pt"]
    assert load_batch(tmp_path / "a" / "step2_batch2_rank0.pt").batch.isnan().all()


def test_a_resumed_run_counts_on(tmp_path: Path) -> None:
    first, second = (SaveBatch(folder=str(tmp_path), max_batches=1) for _ in range(2))
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    sgd = torch.optim.SGD([weight], 0.1)
    assert first.apply(NONFINITE, training_for(sgd)) is not None
    second.load_state_dict(first.state_dict())
    assert second.apply(NONFINITE, training_for(sgd)) is None
    second.reset()
    assert second.apply(NONFINITE, training_for(sgd)) is not None


def test_batches_are_kept_for_no_longer_than_the_step(tmp_path: Path) -> None:
    _, watch, _, _ = fit(tmp_path, [SaveBatch(folder=str(tmp_path / "a"))])
    assert isinstance(watch, GradWatch)
    assert not watch._window.kept


@pytest.mark.parametrize(
    ("arguments", "error", "shown"),
    [
        ({"on": ("nan",)}, ValueError, "'nan'.*Choose from"),
        ({"max_batches": 0}, ValueError, ">= 1, got 0"),
        ({"max_mb": 0}, ValueError, "> 0, got 0"),
        ({"folder": 3}, TypeError, "folder must be a path"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: dict[str, Any], error: type[Exception], shown: str
) -> None:
    with pytest.raises(error, match=shown):
        SaveBatch(**arguments)
