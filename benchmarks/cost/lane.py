"""Several trainings that are alive at once and make their steps in turn, in one process.

Each `Trainer.fit` runs in a thread of its own and waits at the beginning of a step until it is let
through. Never more than one of them moves, so that the clock of the process is that of the one
which does; and steps of different trainings lie within a second of one another, so that what else
the machine does falls on all of them alike.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch

from lightning_gradwatch import GradWatch, native
from lightning_gradwatch.together import Together


@dataclass
class Step:
    """One measured step.

    Attributes:
        index: Number of the step in its training, from 0.
        cpu: CPU time of the process in seconds, writer threads included.
        wall: Time on the clock in seconds; what writer threads did after the step is not in it.
        inside: CPU seconds that a stopwatch inside the step has added up.
        first: The first of a turn: caches are those of another training.
    """

    index: int
    cpu: float
    wall: float
    inside: float
    first: bool


@dataclass
class Stopwatch:
    """Adds up CPU time of this thread inside a step."""

    seconds: float = 0.0

    def take(self) -> float:
        """Return what was added since the last time."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


class Turnstile(pl.Callback):
    """Times whole steps and waits between turns; first in the list, so that all lies between."""

    def __init__(self, stopwatch: Stopwatch | None = None) -> None:
        self.steps: list[Step] = []
        self.go, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self.stopwatch = stopwatch or Stopwatch()
        self._left = 0
        self._began: tuple[float, float] | None = None
        self._first = True

    def on_train_batch_start(self, *_: Any) -> None:
        """A step ends and the next begins."""
        wall = time.perf_counter()
        last = self._left <= 1
        if self._began is not None:
            if last:
                quiet()
            cpu = time.process_time()
            index, inside = len(self.steps), self.stopwatch.take()
            self.steps.append(
                Step(index, cpu - self._began[0], wall - self._began[1], inside, self._first)
            )
        self._first = last
        self._left -= 1
        if last:
            self.back.release()
            self.go.acquire()
            self.stopwatch.take()
        self._began = (time.process_time(), time.perf_counter())

    def turn(self, steps: int) -> None:
        """Let so many steps through; called from outside."""
        self._left = steps
        self.go.release()
        self.back.acquire()


def quiet(threshold: float = 2e-4, patience: float = 5.0) -> None:
    """Wait until no thread of this process is at work: what a step left to writers is its own."""
    end = time.perf_counter() + patience
    before = time.process_time()
    while time.perf_counter() < end:
        time.sleep(0.001)
        now = time.process_time()
        if now - before < threshold:
            return
        before = now


@dataclass
class Lane:
    """One training in its thread.

    Args:
        name: Of the variant.
        trainer: Has the turnstile first in its callbacks.
        module: What it fits.
        turnstile: The same.
        total: Steps of the whole fit; one more is begun and not measured.
        portable: Does without the compiled reader.
    """

    name: str
    trainer: pl.Trainer
    module: pl.LightningModule
    turnstile: Turnstile
    total: int
    portable: bool = False
    error: BaseException | None = None
    done: int = 0
    _thread: threading.Thread = field(init=False)

    def start(self) -> None:
        """Run up to the first step."""
        self._thread = threading.Thread(target=self._fit, name=self.name, daemon=True)
        with self._reader():
            self._thread.start()
            self.turnstile.back.acquire()
        self._check()
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, GradWatch):
                _stop_with_the_others(callback)

    def turn(self, steps: int) -> None:
        """Make so many steps, or as many as are left."""
        steps = min(steps, self.total - self.done)
        if steps > 0:
            self.done += steps
            with self._reader():
                self.turnstile.turn(steps)
            self._check()

    def finish(self) -> None:
        """Make the last step, which is not measured, and end the fit."""
        with self._reader():
            self.turnstile.go.release()
            self._thread.join()
        self._check()

    @contextmanager
    def _reader(self) -> Iterator[None]:
        """Take the compiled reader away while this lane moves, if it is to do without."""
        compiled = native.compiled
        if self.portable:
            native.compiled = None
        try:
            yield
        finally:
            native.compiled = compiled

    def _fit(self) -> None:
        try:
            torch.set_num_threads(1)
            self.trainer.fit(self.module, [0] * (self.total + 1))
        except BaseException as error:
            self.error = error
        finally:
            self.turnstile.back.release()

    def _check(self) -> None:
        if self.error is not None:
            raise RuntimeError(f"{self.name} failed") from self.error


def _stop_with_the_others(watch: GradWatch) -> None:
    """Let the clock of a running GradWatch stand while other lanes move.

    It judges steps together as long as none waits for half a second; otherwise each first step of
    a turn would come after such a wait.
    """
    later = watch._engine._later
    if isinstance(later, Together):
        later._clock = time.thread_time
        later._since = 0.0
