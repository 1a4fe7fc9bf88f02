"""The parts that a sample passes after the gradients were read, each timed by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger

from lightning_gradwatch.detectors import default_detectors
from lightning_gradwatch.diagnosis import Diagnosis
from lightning_gradwatch.facts import ModelFacts
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.history import History
from lightning_gradwatch.report import Report
from lightning_gradwatch.reporters import LoggersReporter, RecordingReporter
from lightning_gradwatch.reporters.protocol import RunInfo
from lightning_gradwatch.sample import Sample

#: Steps between two writings to the loggers, Lightning's own interval.
LOG_EVERY = 50

HISTORY, DETECTION, RECORDING, LOGGING = "history", "detection", "recording", "logging"
PARTS = (HISTORY, DETECTION, RECORDING, LOGGING)


class Parts:
    """History, detectors with the diagnosis, recording and loggers, as the engine calls them.

    Args:
        place: Folder for the recording and for TensorBoard.

    Attributes:
        seconds: CPU seconds of this thread in each part since the last `take`.
        by_detector: The same of each detector.
        told: How many findings were announced.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.history = History()
        self.detectors = default_detectors()
        self.diagnosis = Diagnosis(ModelFacts())
        self.logger = TensorBoardLogger(str(place), name="logs")
        self.loggers, self.recording = LoggersReporter(), RecordingReporter()
        run = RunInfo(
            recording_dir=place / "gradwatch", loggers=[self.logger], log_every_n_steps=LOG_EVERY
        )
        self.loggers.start(run)
        self.recording.start(run)
        self.told = 0
        self._zero()

    def _zero(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.by_detector = {type(d).__name__: 0.0 for d in self.detectors}

    def take(self) -> dict[str, float]:
        """Return the seconds so far and begin anew."""
        seconds = self.seconds
        self._zero()
        return seconds

    def step(self, sample: Sample, between: Callable[[], None] = lambda: None) -> None:
        """Pass one sample through everything.

        Args:
            sample: The step.
            between: Stands for the optimizer's step, after which reporters are told of it.
        """
        self._timed(HISTORY, lambda: self.history.append(sample))
        self._timed(DETECTION, lambda: self._detect(sample))
        between()
        self._timed(LOGGING, lambda: self.loggers.sample(sample))
        self._timed(RECORDING, lambda: self.recording.sample(sample))
        if (sample.step + 1) % LOG_EVERY == 0:
            self._timed(LOGGING, lambda: self.loggers.log(sample))

    def _detect(self, sample: Sample) -> None:
        self.diagnosis.see(sample)
        found: list[Finding] = []
        for detector in self.detectors:
            start = time.thread_time()
            found += detector.update(sample)
            self.by_detector[type(detector).__name__] += time.thread_time() - start
        for finding in self.diagnosis.observe(found, sample.step):
            self.told += 1
            self.recording.finding(finding)
            self.loggers.finding(finding)

    def _timed(self, part: str, call: Callable[[], Any]) -> None:
        start = time.thread_time()
        call()
        self.seconds[part] += time.thread_time() - start

    def close(self) -> None:
        """Close the files."""
        report = Report.build(self.history, self.diagnosis.findings)
        self.recording.finish(report)
        self.loggers.finish(report)
        self.logger.finalize("success")
