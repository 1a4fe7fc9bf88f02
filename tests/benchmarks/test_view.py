"""The benchmark of the view runs, and measures what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import view
from lightning_gradwatch.recording import read_recording


def test_quick(capsys: pytest.CaptureFixture[str]):
    view.main(["--quick", "--output", "-"])
    table = capsys.readouterr().out
    assert "| | 50 x 1,000 |" in table
    assert "| first answer, s |" in table
    assert "µs with 1000" in table


def test_its_recordings_are_recordings(tmp_path: Path):
    view.make(tmp_path / "gradwatch", layers=3, each=2, steps=300)
    recording = read_recording(tmp_path)
    assert recording.problems == ()
    assert recording.grad_norm.shape == (300, 6)
    view.append(tmp_path / "gradwatch", recording.layout, 300, 10)
    assert read_recording(tmp_path).steps[-1] == 309
