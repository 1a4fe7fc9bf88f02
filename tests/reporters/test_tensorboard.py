"""The event file read back, written by the reporter alone and by a whole fit."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader

from lightning_gradwatch import GradWatch
from lightning_gradwatch.errors import GradWatchWarning
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.history import History
from lightning_gradwatch.recording import read_recording
from lightning_gradwatch.report import Report
from lightning_gradwatch.reporters import LoggersReporter, RunInfo
from lightning_gradwatch.sample import Sample
from lightning_gradwatch.testing import make_sample
from tests.report.runs import found

NAN = float("nan")


class SayAtStep:
    """A detector that finds something at one step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, sample: Sample) -> Iterable[Finding]:
        if sample.step == self.step:
            text = "The first layer gets little"
            yield Finding(
                "my.code", Severity.WARNING, ("net.0",), self.step, self.step, summary=text
            )


class Model(LightningModule):
    """Two layers and a loss that is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = self.net(batch).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(tmp_path: Path, logger: object, **options: object) -> GradWatch:
    """Train for ten steps, logging every second."""
    torch.manual_seed(0)
    watch = GradWatch(detectors=[SayAtStep(3)], **options)  # type: ignore[arg-type]
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=2, log_every_n_steps=2,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[watch], logger=logger,
    )  # fmt: skip
    trainer.fit(Model(), DataLoader(torch.randn(20, 4), batch_size=4))
    return watch


def read(logger: TensorBoardLogger) -> EventAccumulator:
    return EventAccumulator(logger.log_dir).Reload()


def check_scalars(events: EventAccumulator, watch: GradWatch) -> None:
    """Tags, steps and values, against the history in memory."""
    norm = events.Scalars("gradwatch/log10_norm")
    # On the steps of the user's own metrics, so that curves line up.
    assert [e.step for e in norm] == [e.step for e in events.Scalars("loss")] == [1, 3, 5, 7, 9]
    expected = np.log10(watch.history.global_norm)
    np.testing.assert_allclose([e.value for e in norm], expected[1::2], rtol=1e-5)
    pairs = expected.reshape(5, 2).max(axis=1)
    highest = [e.value for e in events.Scalars("gradwatch/log10_norm_highest")]
    np.testing.assert_allclose(highest, pairs, rtol=1e-5)
    assert [e.value for e in events.Scalars("gradwatch/findings")] == [0, 1, 1, 1, 1]
    ours = [tag for tag in events.Tags()["scalars"] if tag.startswith("gradwatch/")]
    assert 8 <= len(ours) <= 12


def test_a_fit_with_two_loggers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board, table = TensorBoardLogger(tmp_path / "tb"), CSVLogger(tmp_path / "csv")
    watch = fit(tmp_path, [board, table])
    events = read(board)
    check_scalars(events, watch)
    tensors = events.Tags()["tensors"]
    assert "custom_scalars__config__" in tensors
    texts = events.Tensors("gradwatch/diagnosis/text_summary")
    assert [text.step for text in texts] == [3, 9]
    assert b"The first layer gets little." in texts[0].tensor_proto.string_val[0]
    assert texts[1].tensor_proto.string_val[0].startswith(b"# GradWatch: my.code")
    with (Path(table.log_dir) / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["gradwatch/log10_norm"]]
    assert [int(row["step"]) for row in rows] == [1, 3, 5, 7, 9]
    out = [line for line in capsys.readouterr().out.splitlines() if "GradWatch" in line]
    assert out == [watch.report().headline]
    recording = read_recording(board.log_dir)
    assert recording.steps.tolist() == list(range(10))
    np.testing.assert_allclose(recording.grad_norm, watch.history.grad_norm, rtol=1e-6)
    np.testing.assert_allclose(recording.clipped_norm, watch.history.clipped_norm, rtol=1e-6)
    assert recording.findings == watch.findings
    live, disk = watch.report(), Report.from_recording(recording)
    assert (disk.headline, disk.steps, disk.epochs) == (live.headline, 10, 2)
    for there, here in zip(disk.blocks, live.blocks, strict=True):
        assert (there.name, there.status, there.marks) == (here.name, here.status, here.marks)
        assert there.median == pytest.approx(here.median, rel=1e-6)
        assert there.maximum == pytest.approx(here.maximum, rel=1e-6)


def test_a_fit_with_a_csv_logger_alone(tmp_path: Path) -> None:
    table = CSVLogger(tmp_path)
    watch = fit(tmp_path, table)
    with (Path(table.log_dir) / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["gradwatch/log10_norm"]]
    logged = [float(row["gradwatch/log10_norm"]) for row in rows]
    np.testing.assert_allclose(logged, np.log10(watch.history.global_norm)[1::2], rtol=1e-5)
    assert read_recording(table.log_dir).problems == ()


def test_a_fit_without_logger(tmp_path: Path) -> None:
    watch = fit(tmp_path, False)
    assert list(tmp_path.rglob("segment-*")) == []
    assert len(watch.history.steps) == 10
    fit(tmp_path, False, record=tmp_path / "mine")
    assert read_recording(tmp_path / "mine").recorded == 10


def test_no_recording_when_it_is_off(tmp_path: Path) -> None:
    fit(tmp_path, CSVLogger(tmp_path), record=False)
    assert list(tmp_path.rglob("segment-*")) == []


def test_tensorboard_reads_back_what_was_written(tmp_path: Path) -> None:
    board, table = TensorBoardLogger(tmp_path), CSVLogger(tmp_path, name="csv")
    reporter = LoggersReporter()
    reporter.start(RunInfo(loggers=[board, table]))
    history = History()
    with warnings.catch_warnings():
        warnings.simplefilter("error", GradWatchWarning)
        for step in range(6):
            sample = make_sample(step, [10.0**step, NAN if step == 4 else 1.0])
            history.append(sample)
            reporter.sample(sample)
            if step % 2:
                reporter.log(sample)
        reporter.finding(found("exploding", ["layer0"], last_step=5))
        reporter.finish(Report.build(history, [found("exploding", ["layer0"], last_step=5)]))
    board.finalize("success")
    table.save()
    events = read(board)
    tags = events.Tags()
    assert {t for t in tags["scalars"] if not t.startswith("gradwatch/")} == set()
    highest = events.Scalars("gradwatch/log10_norm_highest")
    assert [event.step for event in highest] == [1, 3, 5]
    assert [event.value for event in highest] == pytest.approx([1.0, 3.0, 5.0], abs=0.01)
    assert [e.value for e in events.Scalars("gradwatch/nonfinite_steps")] == [0.0, 0.0, 1.0]
    assert "custom_scalars__config__" in tags["tensors"]
    texts = events.Tensors("gradwatch/diagnosis/text_summary")
    last = texts[-1].tensor_proto.string_val[0].decode()
    assert texts[-1].step == 5
    assert last.startswith("# GradWatch: exploding gradients")
    lines = (Path(table.log_dir) / "metrics.csv").read_text().splitlines()
    assert len(lines) == 1 + 3
    assert "gradwatch/log10_norm" in lines[0]
