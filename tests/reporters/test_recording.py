"""The reporter that records: sessions, folders that cannot be written to, copies."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path

import pytest

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.errors import GradWatchWarning
from lightning_gradwatch.history import History
from lightning_gradwatch.recording import read_recording
from lightning_gradwatch.report import Report
from lightning_gradwatch.reporters import RecordingReporter, RunInfo, default_reporters
from lightning_gradwatch.testing import make_sample
from tests.report.runs import found


def test_a_fit_is_recorded_with_its_diagnosis(tmp_path: Path) -> None:
    reporter = RecordingReporter()
    reporter.start(RunInfo(recording_dir=tmp_path / "gradwatch", config={"every_n_steps": 1}))
    history = History()
    for step in range(5):
        sample = make_sample(step)
        history.append(sample)
        reporter.sample(sample)
        reporter.log(sample)
    reporter.action(ActionRecord("ClipGradNorm", 4, "", 2.0, 1.0))
    merged = found("spike", last_step=12, count=3)
    reporter.finding(found("spike"))
    reporter.finish(Report.build(history, [merged]))
    recording = read_recording(tmp_path)
    assert recording.steps.tolist() == list(range(5))
    assert recording.findings == (merged,)
    assert [a.action for a in recording.actions] == ["ClipGradNorm"]
    assert recording.config == {"every_n_steps": 1}


def test_a_second_fit_is_a_session_of_its_own(tmp_path: Path) -> None:
    reporter = RecordingReporter()
    for first in (0, 3):
        reporter.start(RunInfo(recording_dir=tmp_path))
        for step in range(first, 5):
            reporter.sample(make_sample(step, [float(first + 1)]))
        # The first fit dies without `finish`; the second start closes what it left.
    reporter.finish(Report())
    recording = read_recording(tmp_path)
    assert recording.grad_norm[:, 0].tolist() == [1.0, 1.0, 1.0, 4.0, 4.0]


def test_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reporter = RecordingReporter()
    reporter.start(RunInfo())
    reporter.sample(make_sample(0))
    reporter.finding(found("spike"))
    reporter.finish(Report())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    reporter = RecordingReporter()

    def fit() -> None:
        reporter.start(RunInfo(recording_dir=tmp_path / "file" / "gradwatch"))
        reporter.sample(make_sample(0))
        reporter.finding(found("spike"))
        reporter.finish(Report())

    with pytest.warns(GradWatchWarning, match=r"cannot record in .*file.*record=False") as caught:
        fit()
    assert len(caught) == 1


def test_a_disk_that_fills_up_is_one_warning_and_keeps_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = RecordingReporter(flush_seconds=0.0)
    reporter.start(RunInfo(recording_dir=tmp_path))
    for step in range(3):
        reporter.sample(make_sample(step))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning_gradwatch.recording.tables.write_all", full)

    def go_on() -> None:
        for step in range(3, 9):
            reporter.sample(make_sample(step))
        reporter.finish(Report())

    with pytest.warns(GradWatchWarning, match="stops recording.*No space left") as caught:
        go_on()
    assert len(caught) == 1
    assert read_recording(tmp_path).steps.tolist() == [0, 1, 2]


def test_copies_of_a_running_reporter_do_not_record(tmp_path: Path) -> None:
    reporter = RecordingReporter()
    reporter.start(RunInfo(recording_dir=tmp_path))
    for other in (copy.deepcopy(reporter), pickle.loads(pickle.dumps(reporter))):
        other.sample(make_sample(99))
        other.finish(Report())
    reporter.sample(make_sample(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reporter.finish(Report())
    assert read_recording(tmp_path).steps.tolist() == [0]


def test_defaults_are_new_each_time() -> None:
    first, second = default_reporters(), default_reporters()
    assert not {id(r) for r in first} & {id(r) for r in second}
    assert pickle.loads(pickle.dumps(first)) is not None
    with pytest.raises(ValueError, match="flush_seconds"):
        RecordingReporter(flush_seconds=-1.0)
