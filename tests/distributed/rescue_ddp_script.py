"""Run by two processes: trains under DDP and leaves what each rank saw in files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_gradwatch import GradWatch
from lightning_gradwatch.actions import ClipGradNorm, DecayLR, SkipStep, rescue

#: What becomes of the loss of the second rank in a rescue, by batch: one NaN, nine in a row, and
#: an explosion.
SICK = {8: float("nan"), **dict.fromkeys(range(20, 29), float("nan")), 40: 1e12}


class Model(pl.LightningModule):
    def __init__(self, poison: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
        )
        self.poison = poison
        self.truth: list[float] = []

    def training_step(self, batch, batch_idx):
        loss = (self.net(batch[0]) - batch[1]).square().mean()
        if self.global_rank == 1:
            if self.poison == "poison" and batch_idx == 2:
                loss = loss * float("nan")
            if self.poison == "rescue":
                loss = loss * SICK.get(batch_idx, 1.0)
        return loss

    def configure_optimizers(self):
        if self.poison == "rescue":
            return torch.optim.SGD(self.parameters(), 0.01, momentum=0.9)
        return torch.optim.Adam(self.parameters(), 0.01)


class Truth(pl.Callback):
    """Comes before GradWatch, and so before its actions."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        grads = [p.grad.double() for p in pl_module.parameters() if p.grad is not None]
        pl_module.truth.append(float(torch.cat([g.flatten() for g in grads]).norm()))


class Write(pl.Callback):
    """Each rank tells its story: nothing a child process learns returns to its parent."""

    def __init__(self, watch: GradWatch, place: str) -> None:
        self.watch, self.place = watch, place

    def on_train_end(self, trainer, pl_module):
        story = {
            "norms": self.watch.history.grad_norm.tolist(),
            "global": self.watch.history.global_norm.tolist(),
            "truth": pl_module.truth,
            "steps": self.watch.history.steps.tolist(),
            "loss": self.watch.history.loss.tolist(),
            "findings": [f.code for f in self.watch.findings],
            "actions": [r.to_dict() for r in self.watch.actions_taken],
            "weights": [p.detach().tolist() for p in pl_module.parameters()],
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
        }
        Path(self.place, f"rank{trainer.global_rank}.json").write_text(json.dumps(story))


def main(place: str, strategy: str, poison: str, accumulate: str) -> None:
    torch.set_num_threads(1)
    rows = 480 if poison == "rescue" else 64
    x = torch.randn(rows, 8, generator=torch.Generator().manual_seed(1))
    loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4)
    actions = [SkipStep(), ClipGradNorm(0.5), DecayLR(on=("nonfinite",), cooldown=2)]
    watch = GradWatch(actions=rescue() if poison == "rescue" else actions)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=2, strategy=strategy,
        logger=pl.loggers.TensorBoardLogger(place, name="log", version=0),
        callbacks=[Truth(), watch, Write(watch, place)], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
        accumulate_grad_batches=int(accumulate), log_every_n_steps=2,
    )  # fmt: skip
    trainer.fit(Model(poison), loader)


if __name__ == "__main__":
    main(*sys.argv[1:])
