"""`gradwatch demo`: what is sick is told so, and its cure is healthy."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_gradwatch.cli.main import main
from lightning_gradwatch.recording import read_recording


@pytest.mark.parametrize("name", ["mlp", "residual", "rnn"])
def test_sick_is_told(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = [name, "--logdir", str(tmp_path), "--epochs", "2"]
    assert main(["demo", *options, "--sick"]) == 0
    assert "GradWatch: vanishing gradients" in capsys.readouterr().out
    recording = read_recording(tmp_path / f"{name}-sick")
    assert "vanishing" in [finding.code for finding in recording.findings]
    assert main(["demo", *options, "--cured"]) == 0
    assert "GradWatch: healthy" in capsys.readouterr().out


def test_one_or_the_other():
    with pytest.raises(SystemExit) as stop:
        main(["demo", "mlp", "--sick", "--cured"])
    assert stop.value.code == 2
