"""Recordings in remote log directories, by fsspec's store in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import Logger
from torch.utils.data import DataLoader

from lightning_gradwatch import GradWatch, GradWatchWarning
from lightning_gradwatch.cli.main import main
from lightning_gradwatch.recording import read_recording
from lightning_gradwatch.recording.remote import Upload, download
from lightning_gradwatch.report import Report
from lightning_gradwatch.reporters import RecordingReporter, RunInfo
from lightning_gradwatch.testing import make_sample
from lightning_gradwatch.view.catalogue import Catalogue

ADDRESS = "memory://bucket/logs/version_0/gradwatch"


@pytest.fixture(autouse=True)
def store() -> Iterator[MemoryFileSystem]:
    files = MemoryFileSystem()
    files.store.clear()
    yield files
    files.store.clear()


def record(steps: range, norm: float = 1.0) -> None:
    reporter = RecordingReporter()
    reporter.start(RunInfo(recording_address=ADDRESS))
    for t in steps:
        reporter.sample(make_sample(t, [norm]))
    reporter.finish(Report())


def test_there_and_back_and_resumed(tmp_path: Path, store: MemoryFileSystem):
    record(range(6))
    record(range(4, 8), math.nan)  # resumed: a segment of its own, although the folder here is new
    names = [path.rpartition("/")[2] for path in store.find("/bucket")]
    assert [n for n in names if n.endswith("steps.npy")] == [
        "segment-0000.steps.npy", "segment-0001.steps.npy",
    ]  # fmt: skip
    download("memory://bucket/logs", tmp_path)
    recording = read_recording(tmp_path / "version_0")
    assert recording.steps.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [math.isnan(norm) for norm in recording.grad_norm[:, 0]] == [False] * 4 + [True] * 4


def test_copied_while_it_runs(store: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lightning_gradwatch.recording.remote.PAUSE", 0.0)
    reporter = RecordingReporter(flush_seconds=0.0)
    reporter.start(RunInfo(recording_address=ADDRESS))
    for t in range(2000):
        reporter.sample(make_sample(t, [1.0]))
        if t > 100 and store.exists("/bucket/logs/version_0/gradwatch/segment-0000.steps.npy"):
            break
    assert t < 1999
    reporter.finish(Report())


def test_a_store_that_fails_keeps_the_recording_here(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise PermissionError("no entry")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", fail)
    reporter = RecordingReporter()
    reporter.start(RunInfo(recording_address=ADDRESS))
    reporter.sample(make_sample(0, [1.0]))
    with pytest.warns(GradWatchWarning, match=r"PermissionError: no entry\. It stays in") as said:
        reporter.finish(Report())
    folder = str(said[0].message).rpartition("in '")[2].rstrip("'.")
    assert read_recording(folder).steps.tolist() == [0]


def test_a_store_that_is_not_there():
    reporter = RecordingReporter()
    with pytest.warns(GradWatchWarning, match="cannot record in 'nope://x'"):
        reporter.start(RunInfo(recording_address="nope://x"))
    reporter.sample(make_sample(0, [1.0]))
    reporter.finish(Report())


def test_command_line_and_tab_read_it(capsys: pytest.CaptureFixture[str]):
    record(range(6))
    assert main(["ls", "memory://bucket/logs"]) == 0
    assert "version_0      6" in capsys.readouterr().out
    assert main(["report", "memory://bucket/logs"]) == 0
    assert "GradWatch: healthy" in capsys.readouterr().out
    assert main(["check", "nope://x"]) == 2
    assert "cannot read 'nope://x'" in capsys.readouterr().err
    catalogue = Catalogue({"": "memory://bucket/logs", "b": "nope://x"})
    assert list(catalogue.look()) == ["version_0"]
    assert "cannot read 'nope://x'" in catalogue.problems[0]
    run = catalogue.open("version_0")
    assert run is not None
    run.refresh(None)
    assert len(run.series["grad_norm"]) == 6


def test_a_name_that_leads_out_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = ("../../segment-0000.json", "v/segment-0000.json")  # a store may hold any name
    found = {f"/bucket/logs/{name}": {"size": 2} for name in names}
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *_, **__: found)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda *_, **__: b"{}")
    download("memory://bucket/logs", tmp_path / "a" / "b")
    there = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json")]
    assert there == ["a/b/v/segment-0000.json"]


class Remote(Logger):
    """A logger with a remote directory, as TensorBoardLogger(save_dir="s3://...") has."""

    name, version = "run", "version_0"
    log_dir = "memory://bucket/logs/version_0"

    def log_metrics(self, *_: object, **__: object) -> None: ...

    def log_hyperparams(self, *_: object, **__: object) -> None: ...


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


@pytest.mark.parametrize("record", [True, "memory://bucket/logs/version_0/gradwatch"])
def test_a_fit_with_a_remote_log_directory(tmp_path: Path, record: bool | str):
    watch = GradWatch(record=record)
    data = DataLoader(torch.randn(40, 4), batch_size=4)
    Trainer(max_epochs=1, callbacks=[watch], logger=Remote() if record is True else False,
            default_root_dir=tmp_path, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False).fit(Net(), data)  # fmt: skip
    download("memory://bucket/logs", tmp_path / "back")
    assert len(read_recording(tmp_path / "back" / "version_0").steps) == 10
    assert not list(tmp_path.glob("memory:*"))


def test_nothing_is_left_behind():
    upload = Upload(ADDRESS)
    (upload.folder / "segment-0000.json").write_text("{}")
    upload.finish()
    assert not upload.folder.exists()
    assert upload.problem == ""
