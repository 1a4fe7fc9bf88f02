"""When the writer writes, what it costs, and what it does when it cannot."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.recording import RecordingWriter, read_recording
from lightning_gradwatch.testing import make_sample


class Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def rows_on_disk(folder: Path) -> int:
    return len(read_recording(folder).steps)


def test_steps_wait_until_the_buffer_is_full(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, buffer_rows=4, clock=Clock())
    counts = []
    for step in range(9):
        writer.add(make_sample(step))
        counts.append(rows_on_disk(tmp_path))
    assert counts == [0, 0, 0, 4, 4, 4, 4, 8, 8]
    writer.close()
    assert rows_on_disk(tmp_path) == 9


def test_steps_do_not_wait_longer_than_the_patience(tmp_path: Path) -> None:
    clock = Clock()
    writer = RecordingWriter(tmp_path, flush_seconds=5.0, clock=clock)
    counts = []
    for step, now in enumerate([0.0, 4.9, 5.0, 9.9, 10.0]):
        clock.now = now
        writer.add(make_sample(step))
        counts.append(rows_on_disk(tmp_path))
    writer.close()
    assert counts == [0, 0, 3, 3, 5]


def test_a_finding_is_written_at_once_with_the_steps_before_it(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, clock=Clock())
    writer.add(make_sample(0))
    writer.finding(Finding("spike", Severity.INFO, (), 0, 0))
    assert rows_on_disk(tmp_path) == 1
    assert [f.code for f in read_recording(tmp_path).findings] == ["spike"]
    writer.close()


def test_actions_at_every_step_do_not_flush_every_step(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, clock=Clock())
    for step in range(10):
        writer.action(ActionRecord("ClipGradNorm", step, "", 2.0, 1.0))
        writer.add(make_sample(step))
    assert rows_on_disk(tmp_path) == 0
    writer.close()
    assert len(read_recording(tmp_path).actions) == 10


def test_updates_beyond_their_buffer_are_not_lost(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, buffer_rows=16, clock=Clock())
    for step in range(40):
        writer.add(make_sample(step, [1.0], weight_norm=[1.0]))
    writer.close()
    assert read_recording(tmp_path).update_steps.tolist() == list(range(40))


def test_the_buffer_of_a_huge_model_is_bounded(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path)
    sample = make_sample(0, [1.0] * 200_000)
    writer.add(sample)
    assert writer._steps is not None
    assert writer._steps._buffer.nbytes <= 8 * 2**20
    writer.close()


def test_writers_side_by_side_never_share_a_segment(tmp_path: Path) -> None:
    def session(first: int) -> int:
        writer = RecordingWriter(tmp_path, buffer_rows=1)
        for step in range(5):
            writer.add(make_sample(step, [float(first)], optimizer=first))
        writer.close()
        return writer.number

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(session, range(16)))
    assert sorted(numbers) == list(range(16))
    recording = read_recording(tmp_path)
    assert recording.problems == ()
    assert len(recording.steps) == 16 * 5
    assert (recording.grad_norm[:, 0] == recording.optimizer).all()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        RecordingWriter(tmp_path / "file" / "gradwatch")


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = RecordingWriter(tmp_path, buffer_rows=2)
    for step in range(4):
        writer.add(make_sample(step))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning_gradwatch.recording.tables.write_all", full)
    writer.add(make_sample(4))
    with pytest.raises(OSError, match="No space"):
        writer.add(make_sample(5))
    writer.abandon()
    assert rows_on_disk(tmp_path) == 4


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files in /proc")
def test_close_leaves_no_file_open(tmp_path: Path) -> None:
    def open_files() -> int:
        links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
        return sum(str(tmp_path) in os.readlink(link) for link in links if link.is_symlink())

    writer = RecordingWriter(tmp_path, buffer_rows=1)
    writer.add(make_sample(0, [1.0], weight_norm=[1.0]))
    writer.add(make_sample(1, [1.0, 1.0], weight_norm=[1.0, 1.0]))
    assert open_files() == 2
    writer.close()
    assert open_files() == 0


@pytest.mark.parametrize("options", [{"buffer_rows": 0}, {"flush_seconds": float("nan")}])
def test_wrong_arguments(tmp_path: Path, options: dict[str, float]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=name):
        RecordingWriter(tmp_path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("end", ["close", "abandon"])
def test_a_closed_recording_says_so(tmp_path: Path, end: str) -> None:
    writer = RecordingWriter(tmp_path)
    writer.add(make_sample(0))
    getattr(writer, end)()
    with pytest.raises(RuntimeError, match="the recording is closed"):
        writer.add(make_sample(1))
