"""Both namespaces of Lightning, each alone in a process of its own, and both together."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lightning_gradwatch import GradWatch
from tests.trainer.models import NAMESPACES, fit, lightning, regression

SCRIPT = """
import importlib, sys, torch
pl = importlib.import_module({name!r})
from lightning_gradwatch import GradWatch
other = {other!r}
assert other not in sys.modules, "imported a namespace that is not in use"
assert issubclass(GradWatch, pl.Callback)

class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

watch = GradWatch()
trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, callbacks=[watch],
                     enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(Model(), torch.utils.data.DataLoader(torch.randn(16, 4), batch_size=4))
assert len(watch.history) == 4 and watch.healthy, watch.findings
"""


@pytest.mark.parametrize("name", NAMESPACES)
def test_alone_in_a_process(name):
    other = next(n for n in NAMESPACES if n != name)
    code = SCRIPT.format(name=name, other=other)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", NAMESPACES)
def test_one_callback_class_for_both(name):
    for namespace in NAMESPACES:
        lightning(namespace)
    watch = GradWatch(reporters=[])
    fit(regression(name=name), watch, name=name)
    assert len(watch.history) == 5


def test_command_line_of_lightning(tmp_path):
    """LightningCLI builds the callback, its detectors and its actions from YAML."""
    config = tmp_path / "config.yaml"
    config.write_text(
        """
trainer:
  max_epochs: 1
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  callbacks:
    - class_path: lightning_gradwatch.GradWatch
      init_args:
        every_n_steps: 2
        norm_type: inf
        budget: 0.5
        detectors:
          - class_path: lightning_gradwatch.detectors.VanishingGradient
            init_args: {ratio: 0.001}
        actions:
          - class_path: lightning_gradwatch.actions.ClipGradNorm
            init_args: {max_norm: 1.0}
          - class_path: lightning_gradwatch.actions.DecayLR
            init_args: {factor: 0.5, "on": [exploding]}
"""
    )
    code = f"""
import torch
from pytorch_lightning.cli import LightningCLI
from pytorch_lightning.demos.boring_classes import BoringModel, BoringDataModule
cli = LightningCLI(BoringModel, BoringDataModule, args=["fit", "--config", {str(config)!r}],
                   save_config_callback=None)
watch = [c for c in cli.trainer.callbacks if type(c).__name__ == "GradWatch"][0]
assert len(watch.history) > 0
assert watch.history.norm_type == float("inf")
assert watch._engine.settings.budget == 0.5
assert [type(a).__name__ for a in watch._engine.actions] == ["ClipGradNorm", "DecayLR"]
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
