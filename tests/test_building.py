"""The package builds with a C compiler and without one, and its source archive has all it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEADERS = (
    "dlpack.h", "kernels.h", "looks.h", "outputs.h", "tensors.h", "updates.h", "weights.h",
)  # fmt: skip
SOURCES = ("__init__.py", "_native.c", "_native.pyi", *HEADERS)

pytest.importorskip("setuptools")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What a source archive is made from, so that nothing is built in the working tree."""
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(
        ROOT / "lightning_gradwatch", tmp_path / "lightning_gradwatch",
        ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"),
    )  # fmt: skip
    return tmp_path


def run(folder: Path, *command: str, **env: str) -> str:
    result = subprocess.run(
        [sys.executable, "setup.py", "-q", *command], cwd=folder, env={**os.environ, **env},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def built(folder: Path) -> list[str]:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    return [path.name for path in (folder / "out").rglob(f"_native{suffix}")]


@pytest.mark.skipif(
    not shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]),
    reason="no C compiler here",
)
@pytest.mark.skipif(
    not (Path(sysconfig.get_path("include")) / "Python.h").exists(),
    reason="Python was installed without its headers",
)
def test_with_a_compiler(copy: Path) -> None:
    said = run(copy, "build", "-b", "out")
    assert len(built(copy)) == 1, said
    assert "native.c:" not in said, said  # not one warning of the compiler
    assert ".h:" not in said, said


def test_without_a_compiler(copy: Path) -> None:
    run(copy, "build", "-b", "out", CC="no-such-compiler")
    assert built(copy) == []
    (library,) = (copy / "out").glob("lib*")
    code = (
        "import lightning_gradwatch.native as n, lightning_gradwatch as g\n"
        "assert n.compiled is None\n"
        "print(g.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=library, env={**os.environ, "PYTHONPATH": str(library)},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(str(library))


def test_source_archive(copy: Path) -> None:
    run(copy, "sdist", "-d", "out")
    (archive,) = (copy / "out").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"LICENSE", "setup.py"} <= names
    assert {f"lightning_gradwatch/native/{name}" for name in SOURCES} <= names
