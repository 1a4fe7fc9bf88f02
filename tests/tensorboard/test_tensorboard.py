"""Stock TensorBoard with the tab in it, as a user has it after `pip install`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest

from lightning_gradwatch.recording import RecordingWriter, schema
from lightning_gradwatch.testing import make_sample
from tests.tensorboard.serving import ROOT, serving

#: Stops a process that would import what the tab has to do without.
BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "lightning", "pytorch_lightning", "tensorflow"):
            raise ImportError(f"{name} is blocked by the test")
sys.meta_path.insert(0, Blocked())
"""


def get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=30) as answer:
        data: bytes = answer.read()
    return data


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    writer = RecordingWriter(tmp_path / "logs" / "version_0" / "gradwatch", buffer_rows=4)
    for t in range(10):
        writer.add(make_sample(t, [1.0 + t, 2.0]))
    writer.close([])
    return tmp_path / "logs"


def test_under_a_prefix_and_with_a_broken_run_beside_it(logs: Path):
    torn = logs / "torn" / "gradwatch"
    shutil.copytree(logs / "version_0" / "gradwatch", torn)
    data = (torn / schema.STEPS.format(0)).read_bytes()
    (torn / schema.STEPS.format(0)).write_bytes(data[:-5])
    (torn / schema.UPDATES.format(0)).write_bytes(b"garbage")
    with serving("--logdir", str(logs), prefix="/some/where") as address:
        listing = json.loads(get(f"{address}data/plugins_listing"))["gradwatch"]
        assert listing["enabled"]
        assert listing["tab_name"] == "GradWatch"
        module = listing["loading_mechanism"]["module_path"].rpartition("/")[0].lstrip("/")
        base = f"{address}{module.removeprefix('some/where/')}/"
        runs = [run["run"] for run in json.loads(get(f"{base}runs"))["runs"]]
        assert runs == ["torn", "version_0"]
        about = json.loads(get(f"{base}run?run=torn"))
        assert about["steps"] == 8
        assert any("updates" in problem for problem in about["problems"])
        shutil.rmtree(torn)
        gone = json.loads(get(f"{base}run?run=torn"))
        assert gone["steps"] == 0
        assert json.loads(get(f"{base}run?run=version_0"))["steps"] == 10
        assert b"html" in get(address)


def test_logdir_spec_and_two_names(logs: Path):
    spec = f"a:{logs},b:{logs / 'version_0'}"
    with serving("--logdir_spec", spec) as address:
        base = f"{address}data/plugin/gradwatch/"
        runs = [run["run"] for run in json.loads(get(f"{base}runs"))["runs"]]
        assert runs == ["a/version_0", "b/."]
        assert json.loads(get(f"{base}run?run={quote('b/.')}"))["steps"] == 10


def test_the_plugin_needs_neither_torch_nor_lightning():
    code = BLOCKED + "from lightning_gradwatch.tensorboard.plugin import GradWatchPlugin\n"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)


@pytest.mark.slow
def test_installing_the_wheel_makes_the_tab_appear(logs: Path, tmp_path: Path):
    """Build, install into an empty folder, and let TensorBoard find the entry point there."""
    source = tmp_path / "source"
    parts = ("lightning_gradwatch", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
    source.mkdir()
    for part in parts:
        path = ROOT / part
        if path.is_dir():
            shutil.copytree(path, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / part)
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
               "--no-build-isolation", "--target", str(target), str(source)]  # fmt: skip
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    assert (target / "lightning_gradwatch" / "tensorboard" / "static" / "index.js").is_file()
    code = BLOCKED + (
        "from tensorboard import default\n"
        "import lightning_gradwatch\n"
        f"assert lightning_gradwatch.__file__.startswith({str(target)!r})\n"
        "names = [getattr(p, 'plugin_name', '') for p in default.get_dynamic_plugins()]\n"
        "assert 'gradwatch' in names, names\n"
    )
    environment = os.environ | {"PYTHONPATH": str(target)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=tmp_path,
                   env=environment)  # fmt: skip
    script = target / "bin" / "gradwatch"
    done = subprocess.run([sys.executable, str(script), "ls", str(logs)], check=True, timeout=60,
                          capture_output=True, text=True, env=environment)  # fmt: skip
    assert "version_0" in done.stdout
