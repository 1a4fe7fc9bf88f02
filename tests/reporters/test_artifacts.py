"""Loggers other than TensorBoard's: CSV and W&B for real, MLflow where it is installed."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from lightning_gradwatch import GradWatch, Report
from lightning_gradwatch.recording import read_recording
from lightning_gradwatch.reporters.artifacts import NAME, keep_report
from lightning_gradwatch.reporters.metrics import PREFIX


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = self.net(batch).square().mean()
        self.log("loss", loss)
        return loss * (float("nan") if self.global_step == 15 else 1.0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def fit(logger: object, **options: object) -> GradWatch:
    watch = GradWatch(log_every_n_steps=5)
    data = DataLoader(torch.randn(40, 4), batch_size=4)
    Trainer(max_epochs=2, callbacks=[watch], logger=logger, log_every_n_steps=5,
            enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, **options).fit(Net(), data)  # fmt: skip
    return watch


def test_csv_has_the_scalars_and_the_recording_beside_it(tmp_path: Path):
    logger = CSVLogger(str(tmp_path), name="run")
    watch = fit(logger)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    norms = [row[f"{PREFIX}log10_norm"] for row in rows if row.get(f"{PREFIX}log10_norm")]
    assert len(norms) == 4
    assert float(norms[0]) == pytest.approx(
        float(torch.tensor(watch.history.global_norm[4]).log10()), rel=1e-5
    )
    assert "nan" in norms
    own = [row for row in rows if row.get("loss")]
    ours = [row for row in rows if row.get(f"{PREFIX}log10_norm")]
    assert [row["step"] for row in own] == [row["step"] for row in ours]
    recording = read_recording(logger.log_dir)
    assert len(recording.steps) == 20
    assert "nonfinite" in [finding.code for finding in recording.findings]


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb", reason="W&B is not installed: pip install wandb")
    from pytorch_lightning.loggers import WandbLogger

    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(name="run", save_dir=str(tmp_path), project="test", offline=True)
    fit(logger)
    run = logger.experiment
    folder = Path(run.dir)
    summary = dict(run.summary)
    run.finish()
    assert f"{PREFIX}log10_norm_highest" in summary
    (page,) = folder.rglob("*.html")
    assert page.name.startswith("report_")
    assert "NaN or Inf" in page.read_text(encoding="utf-8")


def test_mlflow_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("mlflow", reason="MLflow is not installed: pip install mlflow-skinny")
    from pytorch_lightning.loggers import MLFlowLogger

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("DO_NOT_TRACK", "true")
    monkeypatch.chdir(tmp_path)
    logger = MLFlowLogger("test", tracking_uri=f"file:{tmp_path}/mlruns")
    watch = fit(logger)
    history = logger.experiment.get_metric_history(logger.run_id, f"{PREFIX}log10_norm")
    assert [entry.step for entry in history] == [4, 9, 14, 19]
    assert history[0].value == pytest.approx(
        float(torch.tensor(watch.history.global_norm[4]).log10()), rel=1e-5
    )
    (page,) = tmp_path.rglob(f"{NAME}.html")
    assert "NaN or Inf" in page.read_text(encoding="utf-8")


def test_mlflow_is_given_the_report():
    kept = []
    client = type("MlflowClient", (), {"__module__": "mlflow.tracking.client"})()
    client.log_text = lambda *arguments: kept.append(arguments)
    keep_report(SimpleNamespace(experiment=client, run_id="abc"), Report(steps=3, parameters=1))
    ((run, text, name),) = kept
    assert (run, name) == ("abc", f"{NAME}.html")
    assert text.startswith("<!doctype html>")


def test_other_loggers_are_left_alone():
    class Writer:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"asked for {name}")

    keep_report(SimpleNamespace(experiment=Writer()), Report())
    keep_report(SimpleNamespace(), Report())
    json.dumps(Report().to_dict())
