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


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["--epochs", "0"], "--epochs must be 1 or more, got 0"), (["--logdir", "{file}"], "a file")],
)
def test_an_argument_that_makes_no_sense_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
):
    file = tmp_path / "file"
    file.touch()
    assert main(["demo", *(word.format(file=file) for word in words)]) == 2
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert captured.out == ""
