"""The instrument of `benchmarks.scaling`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import scaling
from benchmarks.cost import growth, long_run, real
from benchmarks.cost.held import held
from benchmarks.cost.parts import PARTS, Parts
from benchmarks.cost.synthetic import Run
from lightning_gradwatch.recording import read_recording


@pytest.fixture(autouse=True)
def audible(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `silence` turns off would stay off in other tests."""
    for module in (scaling, real):
        monkeypatch.setattr(module, "silence", lambda: torch.set_num_threads(1))


def test_a_sick_step_is_told_and_recorded(tmp_path: Path):
    run, parts = Run(3, trouble=True), Parts(tmp_path)
    for sample in run.samples(9_973 - 15, 9_973 + 2):
        parts.step(sample)
    parts.close()
    assert parts.told >= 1
    assert [f.code for f in parts.diagnosis.findings] == ["nonfinite"]
    recording = read_recording(tmp_path)
    assert recording.problems == ()
    assert recording.grad_norm.shape == (17, 6)
    assert np.isnan(recording.grad_norm).sum() == 6
    assert set(parts.take()) == set(PARTS)


def test_samples_come_as_from_the_engine():
    samples = list(Run(2).samples(0, 120))
    assert [s.step for s in samples if s.flow is not None] == [*range(10), 50, 100]
    updates = [s.step for s in samples if s.update is not None]
    assert updates == [*range(1, 11), 51, 52, 101, 102]
    assert all(s.update.step == s.step - 1 for s in samples if s.update is not None)
    first, second = (s.flow.modules for s in samples[:2] if s.flow is not None)
    assert first is not None
    assert second is not None
    assert first.out_grad_norm is not second.out_grad_norm


def test_what_is_held_is_counted_once():
    numbers = np.zeros(1000)
    one = held([numbers])
    assert 8000 < one < 8500
    assert held([numbers, numbers, numbers[5:]]) < one + 200
    assert held([[numbers]], but=[numbers]) < 200
    assert held([np]) == 0


def test_a_line_is_found():
    found = growth.growth([100, 1000, 10_000], [60.0, 510.0, 5010.0])
    assert found.fixed == pytest.approx(10.0)
    assert found.per_layer == pytest.approx(0.5)
    square = growth.growth([10, 100], [1.0, 100.0])
    assert square.exponent == pytest.approx(2.0)
    assert square.fixed == 0.0  # and not below


def test_stock_is_taken_over_time():
    early, late = long_run.run(2, 2000)
    assert (early.steps, late.steps) == (1000, 2000)
    assert late.tables > early.tables > 0
    assert late.flow > early.flow > 0
    assert early.history > 4096 * 4  # its rows, from the start
    assert late.detectors < early.detectors + 2000
    assert long_run.marks(1000) == [1000]


def test_a_real_training_is_taken_apart():
    taken = real.measure(layers=3, warm_up=2, cycles=1, cycle=40)
    assert set(taken) == set(PARTS)
    assert all(value > 0 for value in taken.values())


def test_a_whole_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(scaling, "RESULTS", tmp_path / "scaling.md")
    scaling.main(
        ["--layers", "4", "8", "--cycles", "1", "--real", "4", "--steps", "300", "--save"]
    )  # fmt: skip
    assert "VanishingGradient" in capsys.readouterr().out
    text = (tmp_path / "scaling.md").read_text(encoding="utf-8")
    assert "| µs of CPU a step | 4 layers | 8 layers |" in text
    assert "| real training |" in text
    assert "## 300 steps of 100 layers" in text
    assert "bytes a layer and step" in text
