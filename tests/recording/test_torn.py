"""A process may be killed at any byte; what was written before stays readable."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.recording import RecordingWriter, read_recording
from lightning_gradwatch.sample import Flow, TimeProfile
from lightning_gradwatch.testing import make_sample


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A recording of two blocks of steps, two of updates, and some lines."""
    folder = tmp_path / "whole"
    writer = RecordingWriter(folder, buffer_rows=2)
    for step in range(4):
        flow = Flow((TimeProfile("rnn", make_sample(0, [0.5, 1.0]).grad_norm),))
        writer.action(ActionRecord("ClipGradNorm", step, "längst", 2.0, 1.0))
        writer.add(make_sample(step, [1.0, 2.0], weight_norm=[1.0, 1.0], flow=flow))
    writer.finding(Finding("spike", Severity.INFO, ("layer0",), 1, 1))
    writer.close()
    return folder


def torn(whole: Path, name: str, size: int, target: Path) -> Path:
    """Copy the recording, `name` cut off after `size` bytes."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(whole, target)
    with (target / name).open("r+b") as file:
        file.truncate(size)
    return target


def last_block(path: Path) -> int:
    """Offset at which the last block begins."""
    return path.read_bytes().rindex(b"\x93NUMPY")


def test_steps_torn_at_every_byte_of_the_last_block(whole: Path, tmp_path: Path) -> None:
    name = "segment-0000.steps.npy"
    start, size = last_block(whole / name), (whole / name).stat().st_size
    assert start > 0
    for cut in range(start, size):
        recording = read_recording(torn(whole, name, cut, tmp_path / "torn"))
        assert recording.steps.tolist() == [0, 1]
        assert len(recording.problems) == (cut > start)
        assert all(name in problem for problem in recording.problems)
    assert read_recording(whole).steps.tolist() == [0, 1, 2, 3]


def test_updates_torn_at_every_byte_of_the_last_block(whole: Path, tmp_path: Path) -> None:
    name = "segment-0000.updates.npy"
    start, size = last_block(whole / name), (whole / name).stat().st_size
    kept = read_recording(torn(whole, name, start, tmp_path / "torn")).update_steps.tolist()
    assert kept == [0, 1, 2]
    for cut in range(start + 1, size):
        recording = read_recording(torn(whole, name, cut, tmp_path / "torn"))
        assert recording.update_steps.tolist() == kept
        assert recording.steps.tolist() == [0, 1, 2, 3]
        assert len(recording.problems) == 1


def test_events_torn_at_every_byte(whole: Path, tmp_path: Path) -> None:
    name = "segment-0000.events.jsonl"
    data = (whole / name).read_bytes()
    for cut in range(len(data) + 1):
        recording = read_recording(torn(whole, name, cut, tmp_path / "torn"))
        lines = data[:cut].count(b"\n")
        assert len(recording.actions) == min(lines, 4)
        assert len(recording.findings) == max(lines - 4, 0)
        assert len(recording.problems) == (not data[:cut].endswith(b"\n") and cut > 0)


def test_profiles_torn_at_every_byte(whole: Path, tmp_path: Path) -> None:
    name = "segment-0000.profiles.jsonl"
    data = (whole / name).read_bytes()
    for cut in range(len(data) + 1):
        recording = read_recording(torn(whole, name, cut, tmp_path / "torn"))
        assert len(recording.profiles) == data[:cut].count(b"\n")


def test_layout_torn_at_every_byte(whole: Path, tmp_path: Path) -> None:
    name = "segment-0000.json"
    size = (whole / name).stat().st_size
    for cut in range(size - 2):  # the last two are a brace and a line break
        recording = read_recording(torn(whole, name, cut, tmp_path / "torn"))
        assert len(recording.steps) == 0
        assert len(recording.actions) == 4
        assert any("segment-0000.json cannot be read" in p for p in recording.problems)
    assert read_recording(torn(whole, name, size - 1, tmp_path / "torn")).problems == ()


def test_a_process_that_is_killed_loses_no_more_than_the_last_flush(tmp_path: Path) -> None:
    code = (
        "import itertools, sys\n"
        "from lightning_gradwatch.recording import RecordingWriter\n"
        "from lightning_gradwatch.testing import make_sample\n"
        "writer = RecordingWriter(sys.argv[1], buffer_rows=64, flush_seconds=600)\n"
        "for step in itertools.count():\n"
        "    writer.add(make_sample(step, [float(step % 1000)]))\n"
        "    print(step, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    seen = [int(next(process.stdout)) for _ in range(300)]
    process.kill()
    seen += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    process.wait()
    process.stdout.close()
    recording = read_recording(tmp_path)
    steps = recording.steps.tolist()
    assert steps == list(range(len(steps)))
    assert seen[-1] + 1 - 64 <= len(steps) <= seen[-1] + 2
    assert recording.grad_norm[:, 0].tolist() == [float(step % 1000) for step in steps]


def test_a_torn_segment_leaves_the_others(whole: Path, tmp_path: Path) -> None:
    writer = RecordingWriter(whole)
    writer.add(make_sample(4, [1.0, 2.0]))
    writer.close()
    recording = read_recording(torn(whole, "segment-0000.json", 10, tmp_path / "torn"))
    assert recording.steps.tolist() == [4]


def test_zeros_behind_the_last_block(whole: Path) -> None:
    """A file system may lengthen a file before it fills it."""
    for path in whole.glob("*.npy"):
        with path.open("ab") as file:
            file.write(bytes(300))
    with (whole / "segment-0000.events.jsonl").open("ab") as file:
        file.write(bytes(300))
    recording = read_recording(whole)
    assert recording.steps.tolist() == [0, 1, 2, 3]
    assert len(recording.actions) == 4
    assert len(recording.problems) == 3


def test_lines_that_make_no_sense_are_counted(whole: Path) -> None:
    with (whole / "segment-0000.events.jsonl").open("ab") as file:
        file.write(b'[]\nNaN\n{"type": "finding"}\n{"type": "action", "step": "x"}\n\xff\xfe\n')
    recording = read_recording(whole)
    assert len(recording.findings) == 1
    assert len(recording.actions) == 4
    assert len(recording.problems) == 3


def test_a_block_of_another_layout_is_refused(whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    writer = RecordingWriter(other)
    writer.add(make_sample(9, [1.0, 2.0, 3.0]))
    writer.close()
    with (whole / "segment-0000.steps.npy").open("ab") as file:
        file.write((other / "segment-0000.steps.npy").read_bytes())
    recording = read_recording(whole)
    assert recording.steps.tolist() == [0, 1, 2, 3]
    assert "other fields" in recording.problems[0]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no recording in .*gradwatch"):
        read_recording(tmp_path)
    with pytest.raises(FileNotFoundError, match="no recording"):
        read_recording(tmp_path / "missing")


def test_a_run_that_has_not_stepped(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path)
    recording = read_recording(tmp_path)
    assert recording.problems == ("no step has been recorded yet",)
    writer.close([])


def test_a_newer_version(whole: Path, tmp_path: Path) -> None:
    path = whole / "segment-0000.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(about | {"format_version": 99, "layout": "of a new kind"}))
    with pytest.raises(ValueError, match=r"format version 99; this .* reads up to 1: pip install"):
        read_recording(whole)
    writer = RecordingWriter(whole)
    writer.add(make_sample(4, [1.0, 2.0]))
    writer.close()
    recording = read_recording(whole)
    assert recording.steps.tolist() == [4]
    assert "format version 99" in recording.problems[0]
