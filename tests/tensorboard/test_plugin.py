"""The plugin's answers over HTTP, without a TensorBoard around it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse
from werkzeug.wrappers import Response

from lightning_gradwatch.recording import RecordingWriter, schema
from lightning_gradwatch.tensorboard.plugin import STATIC, GradWatchPlugin
from lightning_gradwatch.testing import make_sample
from lightning_gradwatch.view.message import decode
from lightning_gradwatch.view.run import RecordedRun

NAME = "größe <b> & 100%/ver sion"


def plugin(logdir: str, spec: str = "") -> GradWatchPlugin:
    flags = SimpleNamespace(logdir=logdir, logdir_spec=spec)
    return GradWatchPlugin(SimpleNamespace(logdir=logdir, flags=flags))


class Page:
    """Asks a plugin as the page does."""

    def __init__(self, plugin: GradWatchPlugin) -> None:
        self.apps = plugin.get_plugin_apps()

    def get(self, route: str, **arguments: Any) -> TestResponse:
        client = Client(self.apps[f"/{route}"], Response)
        response = client.get("/", query_string=arguments)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "Content-Type" in response.headers
        assert "ETag" not in response.headers
        return response

    def json(self, route: str, code: int = 200, **arguments: Any) -> dict[str, Any]:
        response = self.get(route, **arguments)
        assert response.status_code == code, response.get_data(as_text=True)
        answer: dict[str, Any] = json.loads(response.get_data())
        assert answer["format"] == 1
        return answer


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    for run in ("version_0", NAME):
        writer = RecordingWriter(tmp_path / run / "gradwatch", buffer_rows=4)
        for t in range(10):
            writer.add(make_sample(t, {"ä.<script>.weight": 1.0 + t, 'b"]\\.weight': 2.0}))
        writer.close([])
    return tmp_path


def test_runs_run_map_step(logs: Path):
    page = Page(plugin(str(logs)))
    listed = page.json("runs")
    assert [run["run"] for run in listed["runs"]] == [NAME, "version_0"]
    assert listed["problems"] == []
    for run in listed["runs"]:
        assert set(run) == {"run", "version", "writing", "path"}
        assert run["writing"] is True
        about = page.json("run", run=run["run"])
        assert about["version"] == run["version"]
        assert [layer["name"] for layer in about["layers"]] == ["ä.<script>", 'b"]\\']
        response = page.get("map", run=run["run"], bins=4, stats="max,nonfinite")
        assert response.content_type == "application/octet-stream"
        header, planes = decode(response.get_data())
        assert header["run"] == run["run"]
        assert planes[0].tolist() == [[4.0, 8.0, 10.0], [2.0, 2.0, 2.0]]
        step = page.json("step", run=run["run"], step=7, layer=0)
        assert step["parameters"][0]["grad_norm"] == 8.0
    (length,) = struct.unpack_from("<I", response.get_data())
    assert (4 + length) % 4 == 0


@pytest.mark.parametrize(
    ("route", "arguments", "code", "words"),
    [
        ("run", {}, 404, "no run ''"),
        ("run", {"run": "../version_0"}, 404, "there are"),
        ("run", {"run": "/etc"}, 404, "there are"),
        ("map", {"run": "version_0", "series": "x"}, 404, "there are grad_norm"),
        ("map", {"run": "version_0", "bins": "many"}, 400, "'many'"),
        ("map", {"run": "version_0", "bins": "0"}, 400, "1 to 8192"),
        ("map", {"run": "version_0", "from": "1e3"}, 400, "whole number"),
        ("map", {"run": "version_0", "from": "9" * 30}, 400, "too large"),
        ("map", {"run": "version_0", "rows": "0,9"}, 400, "0 to 1"),
        ("map", {"run": "version_0", "stats": "mode"}, 400, "extreme"),
        ("step", {"run": "version_0"}, 400, "which step"),
        ("step", {"run": "version_0", "step": "3", "layer": "7"}, 400, "0 to 1"),
    ],
)
def test_bad_questions(logs: Path, route: str, arguments: Any, code: int, words: str):
    assert words in Page(plugin(str(logs))).json(route, code, **arguments)["error"]


def test_it_grows(logs: Path):
    page = Page(plugin(str(logs)))
    before = page.json("runs")["runs"][1]["version"]
    assert page.json("run", run="version_0")["steps"] == 10
    writer = RecordingWriter(logs / "version_0" / "gradwatch")
    writer.add(make_sample(10, {"ä.<script>.weight": 1e6, 'b"]\\.weight': 2.0}))
    writer.flush()
    assert page.json("runs")["runs"][1]["version"] != before
    assert page.json("run", run="version_0")["last_step"] == 10
    writer.close([])


def test_empty_missing_and_broken_log_directories(tmp_path: Path):
    empty = plugin(str(tmp_path))
    assert not empty.is_active()
    assert "no recording below" in Page(empty).json("runs")["problems"][0]
    missing = plugin(str(tmp_path / "nope"))
    assert not missing.is_active()
    assert "no directory" in Page(missing).json("runs")["problems"][0]
    assert not plugin("").is_active()
    folder = tmp_path / "v" / "gradwatch"
    folder.mkdir(parents=True)
    (folder / schema.META.format(0)).write_bytes(b"\xff\xfe{")
    (folder / schema.EVENTS.format(0)).write_bytes(b"\x00" * 100)
    (folder / schema.STEPS.format(0)).mkdir()
    broken = plugin(str(tmp_path / "v"))
    about = Page(broken).json("run", run=".")
    assert about["steps"] == 0
    assert "cannot be read" in about["problems"][0]
    assert "no step has been recorded" in Page(broken).json("step", 404, run=".", step=0)["error"]


def test_an_error_of_our_own_is_an_answer(logs: Path, monkeypatch: pytest.MonkeyPatch):
    page = Page(plugin(str(logs)))
    page.json("runs")

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("lightning_gradwatch.view.run.RecordedRun.refresh", fail)
    assert "ZeroDivisionError: by zero" in page.json("run", 500, run="version_0")["error"]


@pytest.mark.parametrize("cut", [0.5, None])
def test_a_file_that_goes_between_the_look_and_the_reading(
    logs: Path, monkeypatch: pytest.MonkeyPatch, cut: float | None
):
    page = Page(plugin(str(logs)))
    table = logs / "version_0" / "gradwatch" / schema.STEPS.format(0)
    page.json("run", run="version_0")
    refresh, looked = RecordedRun.refresh, []

    def look(self: RecordedRun) -> None:
        refresh(self)
        if not looked:  # the look is over, the reading has not begun
            data = table.read_bytes()
            table.unlink()
            if cut is not None:
                table.write_bytes(data[: int(cut * len(data))])
        looked.append(len(self.series["grad_norm"]))

    monkeypatch.setattr("lightning_gradwatch.view.run.RecordedRun.refresh", look)
    if cut is None:
        answer = page.json("step", 404, run="version_0", step=9)
        assert "no step has been recorded" in answer["error"]
    else:
        assert page.json("step", run="version_0", step=9)["step"] < 9
    assert looked[0] == 10
    assert looked[1] < 10


def test_logdir_spec(logs: Path):
    page = Page(plugin("", f"a:{logs},b:{logs / 'version_0'}"))
    names = [run["run"] for run in page.json("runs")["runs"]]
    assert names == [f"a/{NAME}", "a/version_0", "b/."]
    assert page.json("run", run="b/.")["steps"] == 10


def test_the_page_and_its_licences_are_served(logs: Path):
    page = Page(plugin(str(logs)))
    assert plugin(str(logs)).frontend_metadata().es_module_path == "/index.js"
    assert page.get("index.js").content_type.startswith("text/javascript")
    for file in STATIC.iterdir():
        assert page.get(file.name).get_data() == file.read_bytes()
