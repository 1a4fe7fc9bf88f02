"""Observing changes nothing: not a weight, not a random number, not a metric of the user's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_gradwatch import GradWatch
from lightning_gradwatch.probe import host
from tests.trainer.models import data, fit, lightning, mlp, regression

pytestmark = pytest.mark.usefixtures("each_reader")


class Recurrent(nn.Module):
    """Raw data goes straight into the RNN: its gradient is only there if we ask for it."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(1, 6, num_layers=2, batch_first=True, dropout=0.3)
        self.head = nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x.unsqueeze(-1))[0][:, -1])


NETS = {
    "dropout": lambda: nn.Sequential(
        nn.Linear(8, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 1)
    ),
    "batch_norm": lambda: nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 1)),
    "recurrent": Recurrent,
}


def trained(watched: bool, net: str, tmp_path: Any, **trainer: Any) -> tuple[Any, ...]:
    from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

    lightning().seed_everything(3)
    model = regression(NETS[net](), lambda m: torch.optim.Adam(m.parameters(), 0.01))
    callbacks = [GradWatch(flow_every_n_steps=2)] if watched else []
    place = tmp_path / str(watched)
    loggers = [CSVLogger(place), TensorBoardLogger(place)]
    it = fit(model, *callbacks, logger=loggers, log_every_n_steps=1, max_epochs=3, **trainer)
    csv = loggers[0].experiment.metrics
    loss = [row["loss"] for row in csv if "loss" in row]
    steps = [row["step"] for row in csv if "loss" in row]
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    return weights, torch.get_rng_state(), loss, steps, dict(it.callback_metrics)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(
    "trainer", [{}, {"accumulate_grad_batches": 2}, {"gradient_clip_val": 0.1}]
)
def test_run_is_bit_identical_to_one_without(net, trainer, tmp_path):
    with_watch = trained(True, net, tmp_path, **trainer)
    without = trained(False, net, tmp_path, **trainer)
    for name, weight in without[0].items():
        assert torch.equal(weight, with_watch[0][name]), name
    assert torch.equal(with_watch[1], without[1])
    assert with_watch[2:4] == without[2:4]
    assert with_watch[4] == without[4]


def test_manual_optimization_metrics_are_untouched():
    """`self.log` from a callback between two optimizers corrupts the user's epoch means."""
    base = lightning().LightningModule

    class Two(base):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.a, self.b = mlp(8, 4, 1), mlp(8, 4, 1)

        def training_step(self, batch, batch_idx):
            for optimizer, net, name in zip(self.optimizers(), (self.a, self.b), "ab", strict=True):
                loss = (net(batch[0]) - batch[1]).square().mean()
                self.log(f"loss_{name}", loss, on_step=True, on_epoch=True)
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()

        def configure_optimizers(self):
            return [torch.optim.SGD(n.parameters(), 0.1) for n in (self.a, self.b)]

    metrics = []
    for callbacks in ([], [GradWatch()]):
        lightning().seed_everything(3)
        metrics.append(dict(fit(Two(), *callbacks, max_epochs=2).callback_metrics))
    assert metrics[0] == metrics[1]


def test_one_transfer_to_the_host_per_step(monkeypatch):
    """Every way off the device is counted, by torch itself and by the probe."""
    monkeypatch.setattr(host, "is_at_hand", lambda values: False)  # as on a device
    counts = {"now": 0}
    ours = {"on": False}

    def counted(name):
        original = getattr(torch.Tensor, name)

        def method(self, *args, **kwargs):
            counts["now"] += ours["on"]
            return original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, method)

    for name in ("item", "tolist", "cpu", "numpy", "__float__", "__bool__", "__int__"):
        counted(name)
    watch = GradWatch(reporters=[], flow_every_n_steps=4)
    engine = watch._engine
    per_step = []
    before_step, after_step = engine.before_step, engine.after_step

    def measured(method):
        def call(*args, **kwargs):
            ours["on"] = True
            try:
                return method(*args, **kwargs)
            finally:
                ours["on"] = False

        return call

    def step(*args, **kwargs):
        counts["now"] = 0
        reads = engine._probe.host.reads
        measured(before_step)(*args, **kwargs)
        per_step.append((counts["now"], engine._probe.host.reads - reads))

    monkeypatch.setattr(engine, "before_step", step)
    monkeypatch.setattr(engine, "after_step", measured(after_step))
    net = Recurrent()
    fit(regression(net), watch, gradient_clip_val=0.01, max_epochs=4)
    assert len(per_step) == 20
    # `.cpu().numpy()` of one vector is two calls and one transfer.
    assert per_step == [(2, 1)] * 20
    assert len(watch.history.flow) == 12  # the first ten, 12 and 16


def test_loader_and_validation_are_left_alone():
    model = regression()
    model.validation_step = lambda batch, batch_idx: None
    watch = GradWatch(reporters=[])
    trainer = lightning().Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[watch],
    )  # fmt: skip
    trainer.fit(model, data(), data())
    trainer.validate(model, data(), verbose=False)
    assert len(watch.history) == 5
