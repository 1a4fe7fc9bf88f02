"""What is compared: plain training, GradWatch, its parts, and the peers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from torch import nn

from benchmarks.cost import peers
from benchmarks.cost.inside import Bound, Idle, Reads
from benchmarks.cost.training import Task
from lightning_gradwatch import GradWatch
from lightning_gradwatch.actions import ClipGradNorm
from lightning_gradwatch.reporters import LoggersReporter, RecordingReporter

#: Steps of every training before the measured window: GradWatch looks closely at the first ten, and
#: judges up to sixteen in a row.
WARM_UP = 30


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: As printed.
        group: `plain`, `ours`, `parts`, `peers` or `inside`.
        callbacks: Returns those it adds.
        task: The module to fit.
        trainer: Further arguments of the Trainer.
        watch_every: W&B's `log_freq`; 0 has no W&B.
        period: Steps after which its cost repeats, where that is longer than the window.
        timed: Time our hooks from inside.
        portable: Do without the compiled reader.
    """

    name: str
    group: str
    callbacks: Callable[[], list[Any]] = list
    task: type[Task] = Task
    trainer: dict[str, Any] = field(default_factory=dict)
    watch_every: int = 0
    period: int = 1
    timed: bool = False
    portable: bool = False

    def logger(self, place: str) -> Any:
        """Return the logger of a run."""
        if self.watch_every:
            return WandbLogger(save_dir=place, offline=True, project="overhead")
        return TensorBoardLogger(place, name=self.name.replace("/", "_"))

    def prepare(self, model: nn.Module, logger: Any, window: int) -> None:
        """Do what is done before the fit."""
        if self.watch_every:
            middle = WARM_UP + window // 2
            ahead = max(0, self.watch_every - middle) if self.watch_every > 1 else 0
            peers.watch(model, logger, self.watch_every, ahead)


def _only(**arguments: Any) -> Callable[[], list[Any]]:
    """Return what makes a GradWatch that reads norms, and what else is said."""

    def make() -> list[Any]:
        plain: dict[str, Any] = {
            "flow_every_n_steps": 0, "detectors": [], "reporters": [], "record": False
        }  # fmt: skip
        made = {key: v() if callable(v) else v for key, v in arguments.items()}
        return [GradWatch(**(plain | made))]

    return make


def _clipping(max_norm: float) -> Callable[[], list[Any]]:
    return lambda: [GradWatch(actions=[ClipGradNorm(max_norm)])]


def _within(budget: float) -> list[Any]:
    """Return a GradWatch with a budget, on a clock that stops while other trainings have a turn."""
    watch = GradWatch(budget=budget)
    watch._engine.time_by(time.thread_time)
    return [watch]


PLAIN, AGAIN, BOUND = "plain", "plain (again)", "the bound"
WHOLE, NORMS = "GradWatch()", "norms only"
PORTABLE = "without the compiled reader"
WHOLE_INSIDE, NORMS_INSIDE = "GradWatch(), from inside", "norms only, from inside"

#: A norm that every gradient is far above, and one that none reaches.
_TIGHT, _WIDE = 1e-4, 1e6

VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(PLAIN, "plain"),
        Variant(AGAIN, "plain"),
        Variant(WHOLE, "ours", lambda: [GradWatch()]),
        Variant("GradWatch(every_n_steps=10)", "ours", lambda: [GradWatch(every_n_steps=10)]),
        # It has decided by the end of the warm-up; a window may show none of its rare samples.
        Variant("GradWatch(budget=0.01)", "ours", lambda: _within(0.01)),
        Variant(f"{WHOLE}, {PORTABLE}", "ours", lambda: [GradWatch()], portable=True),
        Variant(
            f"GradWatch(budget=0.01), {PORTABLE}", "ours", lambda: _within(0.01), portable=True
        ),
        Variant("GradWatch(ClipGradNorm), never needed", "ours", _clipping(_WIDE)),
        Variant("GradWatch(ClipGradNorm), at every step", "ours", _clipping(_TIGHT)),
        Variant("a callback that does nothing", "parts", lambda: [Idle()]),
        Variant("reads every norm, and nothing else", "parts", lambda: [Reads()]),
        Variant(NORMS, "parts", _only()),
        Variant("norms + detectors", "parts", _only(detectors=None)),
        Variant(
            "norms + recording", "parts",
            _only(reporters=lambda: [RecordingReporter()], record=True),
        ),
        Variant("norms + flow", "parts", _only(flow_every_n_steps=50)),
        Variant("norms + TensorBoard", "parts", _only(reporters=lambda: [LoggersReporter()])),
        Variant(
            "Trainer(gradient_clip_val), at every step", "peers",
            trainer={"gradient_clip_val": _TIGHT},
        ),
        Variant("self.log_dict(grad_norm)", "peers", task=peers.Recipe),
        Variant("GradientStatsMonitor *", "peers", lambda: [peers.GradientStatsMonitor()]),
        Variant(
            "GradientStatsMonitor(per_layer) *", "peers",
            lambda: [peers.GradientStatsMonitor(per_layer=True)],
        ),
        Variant("wandb.watch(log_freq=1)", "peers", watch_every=1),
        Variant("wandb.watch(log_freq=100)", "peers", watch_every=100, period=100),
        Variant("Composer OptimizerMonitor(10) *", "peers", lambda: [peers.OptimizerMonitor()]),
        Variant("Composer OptimizerMonitor(1) *", "peers", lambda: [peers.OptimizerMonitor(1)]),
        Variant("ZClip *", "peers", lambda: [peers.ZClip()]),
        Variant("TensorBoard histograms, one step in 50", "peers", lambda: [peers.Histograms()]),
        Variant(".item() loop", "peers", lambda: [peers.ItemLoop()]),
        Variant(WHOLE_INSIDE, "inside", lambda: [GradWatch()], timed=True),
        Variant(NORMS_INSIDE, "inside", _only(), timed=True),
        Variant(BOUND, "inside", lambda: [Bound()]),
    )
}  # fmt: skip
