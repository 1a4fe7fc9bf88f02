"""A run of a million steps: what it holds in memory, what it leaves on disk, what it takes."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cost.held import held
from benchmarks.cost.parts import Parts
from benchmarks.cost.synthetic import Run
from lightning_gradwatch.recording import schema


@dataclass(frozen=True)
class Stock:
    """What there is after so many steps.

    Attributes:
        steps: How many.
        history: Bytes of the history.
        detectors: Bytes of the detectors.
        diagnosis: Bytes of the merged findings.
        recording: Bytes of what waits to be written, and of what writes.
        loggers: Bytes of the loggers' reporter, without the loggers themselves.
        tables: Bytes on disk of the tables of steps and weight changes.
        flow: Bytes on disk of the flow through modules.
        others: Bytes on disk of the rest of the recording.
        tensorboard: Bytes on disk of TensorBoard's files.
        process: Bytes of this process that are in memory, all of it.
        per_step: CPU microseconds of a step since the stock before.
        findings: Announced so far.
    """

    steps: int
    history: int
    detectors: int
    diagnosis: int
    recording: int
    loggers: int
    tables: int
    flow: int
    others: int
    tensorboard: int
    process: int
    per_step: float
    findings: int


#: Titles of what is held in memory, and of what lies on disk, to the names of them in a `Stock`.
MEMORY = {
    "history": "history",
    "detectors": "detectors",
    "diagnosis": "diagnosis",
    "recording": "recording",
    "loggers' reporter": "loggers",
}
DISK = {
    "tables of the recording": "tables",
    "flow of the recording": "flow",
    "rest of the recording": "others",
    "TensorBoard": "tensorboard",
}


def marks(steps: int) -> list[int]:
    """Return the steps at which stock is taken: each power of ten and three times it, and the end.

    Example:
        >>> marks(40_000)
        [1000, 3000, 10000, 30000, 40000]
    """
    found, power = [], 1000
    while power < steps:
        found += [mark for mark in (power, 3 * power) if mark < steps]
        power *= 10
    return [*found, steps]


def run(layers: int, steps: int, told: Callable[[int], None] = lambda _: None) -> Iterator[Stock]:
    """Make the run; sick steps are among its steps now and then.

    Args:
        layers: With a weight and a bias each.
        steps: How many.
        told: Called with the number of steps just made, every 500 or so.
    """
    samples = Run(layers, trouble=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        parts = Parts(place)
        done = 0
        for mark in marks(steps):
            spent, since = 0.0, done
            while done < mark:
                stop = min(mark, done + 500)
                for sample in samples.samples(done, stop):
                    start = time.thread_time()
                    parts.step(sample)
                    spent += time.thread_time() - start
                told(stop - done)
                done = stop
            yield _stock(parts, place, samples, done, 1e6 * spent / (mark - since))
        parts.close()


def _stock(parts: Parts, place: Path, samples: Run, steps: int, per_step: float) -> Stock:
    # The samples' own arrays and names belong to the run that hands them on, as they would to the
    # probe; loggers are the user's.
    but = (samples, parts.logger, *samples.shared)
    names = {schema.FLOW.partition("}")[2]: 0, ".npy": 0, "": 0}
    for file in (place / "gradwatch").iterdir():
        end = next(end for end in names if file.name.endswith(end))
        names[end] += file.stat().st_size
    flow, tables, others = names.values()
    logs = sum(file.stat().st_size for file in (place / "logs").rglob("*") if file.is_file())
    return Stock(
        steps=steps,
        history=held([parts.history], but),
        detectors=held(parts.detectors, but),
        diagnosis=held([parts.diagnosis], but),
        recording=held([parts.recording], but),
        loggers=held([parts.loggers], but),
        tables=tables,
        flow=flow,
        others=others,
        tensorboard=logs,
        process=_resident(),
        per_step=per_step,
        findings=parts.told,
    )


def _resident() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:  # not on Linux: the most so far
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize()
