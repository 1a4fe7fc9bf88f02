"""Who may know what: the rules of imports, and the flat public namespace."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_gradwatch

PACKAGE = Path(lightning_gradwatch.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
#: Parts that may know torch, and the ones that may know Lightning.
TORCH = {
    "probe", "actions", "culprit", "engine.py", "watcher.py", "callback.py", "lightning_trainer.py",
    "lightning_replay.py", "before_start", "demo.py", "native", "unwrapped.py", "at_once.py",
    "later.py", "together.py", "paced.py",
}  # fmt: skip
LIGHTNING = {"lightning_base.py"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_right_parts_know_torch_and_lightning(path):
    part = path.relative_to(PACKAGE).parts[0]
    if part not in TORCH:
        assert "torch" not in imported(path)
    if part not in LIGHTNING:
        assert not {"lightning", "pytorch_lightning"} & imported(path)


def test_reading_and_reporting_import_neither_torch_nor_lightning():
    code = (
        "import sys, lightning_gradwatch\n"
        "from lightning_gradwatch import Finding, History, Report, Sample, Severity\n"
        "import lightning_gradwatch.detectors, lightning_gradwatch.diagnosis\n"
        "import lightning_gradwatch.recording, lightning_gradwatch.reporters\n"
        "import lightning_gradwatch.tensorboard.plugin, lightning_gradwatch.view.live\n"
        "import lightning_gradwatch.cli.main, lightning_gradwatch.view.embedded\n"
        "bad = {'torch', 'lightning', 'pytorch_lightning'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_public_names_are_these():
    assert lightning_gradwatch.__all__ == [
        "ActionRecord",
        "Finding",
        "GradWatch",
        "GradWatchWarning",
        "GradientWatcher",
        "History",
        "Report",
        "Sample",
        "Severity",
        "__version__",
        "preflight",
    ]
    for name in lightning_gradwatch.__all__:
        assert getattr(lightning_gradwatch, name) is not None
    assert dir(lightning_gradwatch) == sorted(lightning_gradwatch.__all__)
    with pytest.raises(AttributeError, match="Gradwatch"):
        lightning_gradwatch.Gradwatch  # noqa: B018  # the attribute access is the test
