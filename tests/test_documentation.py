"""Every Python block of README and docs runs, and every command and link in them exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(page, block, id=f"{page.name}:{page.read_text()[: m.start()].count(chr(10)) + 2}")
    for page in PAGES
    # Those of recording.md need a recording: tests/recording/test_documented.py runs them.
    if page.name != "recording.md"
    for m in re.finditer(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    if (block := m.group(1))
]
#: What the blocks may take for granted: a user's module, loader and Trainer, and our first import.
PREAMBLE = """
import torch
torch.set_num_threads(1)
import pytorch_lightning as pl
from pytorch_lightning import Trainer
from lightning_gradwatch import GradWatch
class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    def training_step(self, batch, batch_idx):
        return self.net(batch).square().mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)
model = Model()
loader = torch.utils.data.DataLoader(torch.randn(64, 8), batch_size=8)
"""


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_block_runs(page, block, tmp_path):
    code = PREAMBLE + block
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=180,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{page.name}:\n{block}\n{done.stderr[-2000:]}"


def test_there_are_blocks():
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_files_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target
    for name in re.findall(r"\b((?:examples|benchmarks|docs)/[\w/]+\.\w+)", text):
        assert (ROOT / name).exists(), name
    for target in re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
