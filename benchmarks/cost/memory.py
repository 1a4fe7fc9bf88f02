"""What watching takes of memory: the peak of the process, and what we hold of it.

Each figure is of a process of its own. The peak is what the system says; what is ours is what
`tracemalloc` finds allocated from our files, numpy's arrays included.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from benchmarks.cost.lanes import lane, silence
from benchmarks.cost.variants import PLAIN, VARIANTS, WHOLE

ROOT = Path(__file__).parents[2]
OURS = "lightning_gradwatch"


class Account(pl.Callback):
    """Notes at the end of training what is allocated from our files, by part of the package."""

    held: dict[str, int]
    peak = 0

    def on_train_epoch_end(self, *_: Any) -> None:
        """Take stock."""
        self.held = {}
        for trace in tracemalloc.take_snapshot().traces:
            part = _part([frame.filename for frame in reversed(list(trace.traceback))])
            if part:
                self.held[part] = self.held.get(part, 0) + trace.size


def _part(files: list[str]) -> str:
    """Return the part of our package that the innermost of our frames is in; empty if none is."""
    for file in files:
        _, found, inside = file.rpartition(f"/{OURS}/")
        if found:
            return inside.partition("/")[0].removesuffix(".py")
    return ""


def measure(model: str, variant: str, steps: int, trace: bool) -> dict[str, Any]:
    """Train and return the peak of this process, or what is ours of it, in bytes."""
    silence()
    account = Account()
    if trace:
        tracemalloc.start(12)
    with tempfile.TemporaryDirectory() as place:
        made = lane(model, VARIANTS[variant], steps, place)
        # Without others to take turns with, the fit needs no turnstile.
        callbacks: list[pl.Callback] = vars(made.trainer)["callbacks"]
        callbacks.remove(made.turnstile)
        if trace:
            callbacks.insert(0, account)
        made.trainer.fit(made.module, [0] * steps)
    gradients = sum(4 * p.numel() for p in made.module.parameters())
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak": peak, "gradients": gradients, "held": account.held if trace else {}}


def apart(model: str, variant: str, steps: int, trace: bool = False) -> dict[str, Any]:
    """Return the same from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.cost.memory", model, variant, str(steps)]
    done = subprocess.run(
        [*command, *(["--trace"] if trace else [])],
        check=True, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


#: Columns of the table of memory, in megabytes.
HEADS = (
    "MB",
    "gradients",
    "peak, plain",
    "peak, GradWatch()",
    "more",
    "History",
    "recording",
    "detectors",
    "all of ours",
)


def row(model: str, title: str, steps: int, times: int = 3) -> list[str]:
    """Return a row of the table for one model; peaks are medians of so many processes."""
    plain = [apart(model, PLAIN, steps) for _ in range(times)]
    watched = [apart(model, WHOLE, steps) for _ in range(times)]
    held = apart(model, WHOLE, steps, trace=True)["held"]
    least = statistics.median(found["peak"] for found in plain)
    most = statistics.median(found["peak"] for found in watched)
    numbers = [
        plain[0]["gradients"],
        least,
        most,
        most - least,
        held.get("history", 0),
        held.get("recording", 0),
        held.get("detectors", 0),
        sum(held.values()),
    ]
    return [title, *(f"{number / 1e6:.1f}" for number in numbers)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("variant")
    parser.add_argument("steps", type=int)
    parser.add_argument("--trace", action="store_true")
    given = parser.parse_args()
    result = measure(given.model, given.variant, given.steps, given.trace)
    print(json.dumps(result))
