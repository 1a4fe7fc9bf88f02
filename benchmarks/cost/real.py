"""The same parts in a real training, to check what synthetic samples say of them."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

from benchmarks.cost.lanes import silence
from benchmarks.cost.models import Many
from benchmarks.cost.parts import DETECTION, HISTORY, LOGGING, PARTS, RECORDING
from benchmarks.cost.training import Task
from lightning_gradwatch import GradWatch
from lightning_gradwatch.detectors import default_detectors
from lightning_gradwatch.reporters import LoggersReporter, RecordingReporter


class Watched(pl.Callback):
    """Times the parts of a `GradWatch` from inside, step by step.

    Attributes:
        steps: For each step the CPU seconds of each part.
    """

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._now = dict.fromkeys(PARTS, 0.0)
        detectors = default_detectors()
        for detector in detectors:
            # What it yields is worked out while it is listed.
            update: Callable[..., Any] = detector.update
            listed = lambda sample, update=update: list(update(sample))  # noqa: E731
            vars(detector)["update"] = self._timed(DETECTION, listed)
        loggers, recording = LoggersReporter(), RecordingReporter()
        for name in ("sample", "log"):
            vars(loggers)[name] = self._timed(LOGGING, getattr(loggers, name))
        vars(recording)["sample"] = self._timed(RECORDING, recording.sample)
        self.watch: Any = GradWatch(detectors=detectors, reporters=[loggers, recording])

    def _timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            start = time.thread_time()
            result = call(*args)
            self._now[part] += time.thread_time() - start
            return result

        return timed

    def on_train_start(self, *_: Any) -> None:
        """The history is made new when training starts; this comes after."""
        history = self.watch.history
        vars(history)["append"] = self._timed(HISTORY, history.append)

    def on_train_batch_end(self, *_: Any) -> None:
        """A step is over, that of the watch as well: this comes after."""
        self.steps.append(self._now)
        self._now = dict.fromkeys(PARTS, 0.0)


def measure(layers: int, warm_up: int, cycles: int, cycle: int) -> dict[str, float]:
    """Train so many small layers and return the microseconds of each part of a step.

    Args:
        layers: With a weight and a bias each.
        warm_up: Steps that are not measured.
        cycles: Measured cycles; each figure is the median over them.
        cycle: Steps of a cycle.
    """
    silence()
    watched = Watched()
    with tempfile.TemporaryDirectory() as place, torch.random.fork_rng():
        torch.manual_seed(0)
        steps = warm_up + cycles * cycle
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", callbacks=[watched.watch, watched],
            logger=pl.loggers.TensorBoardLogger(place), enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(Task(Many(layers), lr=1e-3), [0] * steps)
    kept = watched.steps[warm_up:]
    return {
        part: statistics.median(
            1e6 * statistics.mean(step[part] for step in kept[i * cycle : (i + 1) * cycle])
            for i in range(cycles)
        )
        for part in PARTS
    }
