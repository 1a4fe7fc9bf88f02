"""Which recordings are found, what they are called, and that nothing outside is looked at."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lightning_gradwatch.recording import RecordingWriter
from lightning_gradwatch.testing import make_sample
from lightning_gradwatch.view.catalogue import Catalogue, find_recordings, parse_logdir_spec


def record(folder: Path) -> None:
    writer = RecordingWriter(folder)
    writer.add(make_sample(0, [1.0]))
    writer.close([])


def test_names_are_those_of_tensorboard(tmp_path: Path):
    for run in ("", "version_10", "version_2", "a/b", "größe <b> & 100%/ver sion"):
        record(tmp_path / run / "gradwatch")
    record(tmp_path / "mine")  # GradWatch(record="mine")
    (tmp_path / "empty" / "gradwatch").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    record(tmp_path / ".hidden" / "gradwatch")
    found = Catalogue({"": tmp_path}).look()
    assert set(found) == {".", "version_10", "version_2", "a/b", "mine",
                          "größe <b> & 100%/ver sion"}  # fmt: skip
    assert list(found)[-2:] == ["version_2", "version_10"]


def test_a_run_and_a_recording_are_log_directories_too(tmp_path: Path):
    record(tmp_path / "gradwatch")
    assert dict(find_recordings(tmp_path)) == {".": tmp_path / "gradwatch"}
    assert dict(find_recordings(tmp_path / "gradwatch")) == {".": tmp_path / "gradwatch"}


def test_logdir_spec(tmp_path: Path):
    for run in ("one", "two/v1"):
        record(tmp_path / run / "gradwatch")
    folders = parse_logdir_spec(f"a:{tmp_path}/one,b:{tmp_path}/two")
    assert list(Catalogue(folders).look()) == ["a/.", "b/v1"]
    assert list(parse_logdir_spec("/x:y,~/z")) == ["", "1"]


def test_nothing_outside_is_looked_at(tmp_path: Path):
    record(tmp_path / "secret" / "gradwatch")
    logs = tmp_path / "logs"
    record(logs / "ok" / "gradwatch")
    (logs / "linked").symlink_to(tmp_path / "secret")
    (logs / "gradwatch").mkdir()
    (logs / "gradwatch" / "segment-0000.json").symlink_to(
        tmp_path / "secret" / "gradwatch" / "segment-0000.json"
    )
    catalogue = Catalogue({"": logs})
    assert list(catalogue.look()) == ["ok"]
    for name in ("../secret", "linked", "/etc", "ok/../../secret", "", "ok/gradwatch"):
        assert catalogue.open(name) is None
    run = catalogue.open("ok")
    assert run is not None
    assert run.folder == logs / "ok" / "gradwatch"


def test_no_directory_and_an_unknown_store(tmp_path: Path):
    catalogue = Catalogue({"a": tmp_path / "nope", "b": "nope://bucket/logs"})
    assert catalogue.look() == {}
    assert "no directory" in catalogue.problems[0]
    assert "cannot read 'nope://bucket/logs'" in catalogue.problems[1]


def test_what_nobody_looks_at_is_closed(tmp_path: Path):
    for i in range(3):
        record(tmp_path / f"v{i}" / "gradwatch")
    catalogue = Catalogue({"": tmp_path}, max_bytes=1)
    first = catalogue.open("v0")
    assert first is not None
    first.refresh(None)
    assert catalogue.open("v0") is first
    second = catalogue.open("v1")
    assert second is not None
    second.refresh(None)
    catalogue.open("v2")
    assert catalogue.open("v0") is not first


def test_new_runs_appear_and_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lightning_gradwatch.view.catalogue.FRESH", 0.0)
    monkeypatch.setattr("lightning_gradwatch.view.catalogue.SHARE", 0.0)
    catalogue = Catalogue({"": tmp_path})
    assert catalogue.look() == {}
    record(tmp_path / "v0" / "gradwatch")
    assert list(catalogue.look()) == ["v0"]
    shutil.rmtree(tmp_path / "v0")
    assert catalogue.look() == {}
    assert catalogue.open("v0") is None


def test_a_walk_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lightning_gradwatch.view.catalogue.FRESH", 0.0)
    monkeypatch.setattr("lightning_gradwatch.view.catalogue.SHARE", 0.0)
    record(tmp_path / "v0" / "gradwatch")
    with monkeypatch.context() as patch:
        patch.setattr("os.walk", lambda *_: 1 / 0)
        patch.setattr("threading.excepthook", lambda _: None)
        catalogue = Catalogue({"": tmp_path})
        assert catalogue.look() == {}
    assert list(catalogue.look()) == ["v0"]


def test_a_name_that_is_no_text_comes_back_from_the_browser(tmp_path: Path):
    record(tmp_path / "bad \udcff" / "gradwatch")
    record(tmp_path / "bad \udcfe" / "gradwatch")
    catalogue = Catalogue({"": tmp_path})
    names = list(catalogue.look())
    assert names == ["bad ?", "bad ?/gradwatch"]
    for name in names:
        assert name.encode()
        assert catalogue.open(name) is not None
