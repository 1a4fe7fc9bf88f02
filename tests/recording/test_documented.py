"""The page on the format tells the truth: its code runs, its tables name every field."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from lightning_gradwatch.recording import RecordingWriter, flow, schema
from lightning_gradwatch.testing import make_sample

PAGE = Path(__file__).parents[2] / "docs" / "recording.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log directory, as the working directory."""
    folder = tmp_path / "lightning_logs" / "version_0"
    writer = RecordingWriter(folder / "gradwatch", buffer_rows=2)
    for step in range(5):
        writer.add(make_sample(step, {"a.weight": float(step), "b.weight": 0.5}))
    writer.close()
    monkeypatch.chdir(tmp_path)
    return folder


def execute(code: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "docs/recording.md", "exec"), {})
    return out.getvalue()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_five_lines_without_the_package(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    assert "lightning_gradwatch" not in BLOCKS[0]
    assert len(BLOCKS[0].strip().splitlines()) == 5
    assert execute(BLOCKS[0]) == "{'a.weight': 4.0, 'b.weight': 0.5}\n"


def test_with_the_package(run: Path) -> None:
    out = execute(BLOCKS[1])
    assert out.startswith("GradWatch: healthy\n5 steps")
    assert out.endswith("\n()\n")


def test_every_field_is_explained() -> None:
    page = PAGE.read_text(encoding="utf-8")
    fields = {*(schema.steps_dtype(1).names or ()), *(schema.updates_dtype(1).names or ())}
    assert {name for name in fields if f"`{name}`" not in page} == set()
    assert schema.META.format(0) in page
    assert schema.PROFILES.format(0) in page
    assert schema.FLOW.format(0) in page
    assert {name for name in flow.FIELDS if f"`{name}`" not in page} == set()
