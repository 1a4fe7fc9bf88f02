"""What the view costs: first answer, zoom, growth, memory, and recording a step.

Recordings are made with the package's own table format, then opened as the plugin opens them: the
first answer when nothing has been read yet, what follows until all is read, maps at several zooms,
one step, and the answer after 256 more steps. Memory is that of the process, over what it took
before.

    python -m benchmarks.view                  # writes benchmarks/results/view.md
    python -m benchmarks.view --quick --output -
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lightning_gradwatch.layers import Layout
from lightning_gradwatch.recording import RecordingWriter, schema
from lightning_gradwatch.testing import make_flow, make_sample
from lightning_gradwatch.view import answers
from lightning_gradwatch.view.embedded import as_script, embed
from lightning_gradwatch.view.run import PATIENCE, RecordedRun

RESULTS = Path(__file__).parent / "results" / "view.md"

#: Layers, parameters in each, steps.
SIZES = {
    "200 x 20,000": (200, 2, 20_000),
    "1,000 x 20,000": (1_000, 2, 20_000),
    "1,000 x 100,000": (1_000, 1, 100_000),
    "10,000 x 2,000": (10_000, 1, 2_000),
}
QUICK = {"50 x 1,000": (50, 2, 1_000)}


def make(folder: Path, layers: int, each: int, steps: int) -> None:
    """Write a recording of random norms, as the writer would."""
    parts = ("weight", "bias")[:each]
    layout = Layout.of({f"layer{i}.{part}": 100 for i in range(layers) for part in parts})
    about = {
        "format_version": schema.FORMAT_VERSION,
        "session": "benchmark",
        "norm_type": 2.0,
        "layout": layout.to_dict(),
        "config": {},
        "environment": {},
    }
    folder.mkdir(parents=True)
    (folder / schema.META.format(0)).write_text(json.dumps(about), encoding="utf-8")
    (folder / schema.EVENTS.format(0)).write_bytes(b"")
    append(folder, layout, 0, steps)


def append(folder: Path, layout: Layout, start: int, steps: int) -> None:
    """Append steps to a recording."""
    rng = np.random.default_rng(start)
    dtype = schema.steps_dtype(len(layout.parameters))
    with (folder / schema.STEPS.format(0)).open("ab") as file:
        for first in range(start, start + steps, 256):
            rows = np.zeros(min(256, start + steps - first), dtype)
            rows["step"] = np.arange(first, first + len(rows))
            for name in ("loss", "lr", "global_norm", "clipped_norm"):
                rows[name] = 1.0
            rows["grad_norm"] = np.exp(rng.normal(size=rows["grad_norm"].shape).astype("f4"))
            rows["has_grad"] = True
            np.save(file, rows)


def timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return seconds on the clock, seconds of CPU, and what the call returned."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def memory() -> float:
    """Most memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(folder: Path) -> dict[str, float]:
    """Open a recording and ask what the page asks."""
    before = memory()
    run = RecordedRun(folder)

    def first() -> int:
        run.refresh(PATIENCE)
        answers.describe(run, "run")
        return len(answers.bins(run, "run", most=1000))

    found: dict[str, float] = {}
    found["first answer, s"], found["of it CPU, s"], size = timed(first)
    found["its map, MB"] = size / 1e6
    _, cpu, _ = timed(lambda: run.refresh(None))
    found["all read, s of CPU"] = found["of it CPU, s"] + cpu
    steps = len(run.series["grad_norm"])
    views = {
        "whole map, ms": (None, None),
        "a tenth, ms": (steps // 2, steps // 2 + steps // 10),
        "300 steps, ms": (steps // 2, steps // 2 + 299),
    }
    for name, (start, stop) in views.items():
        walls = [
            timed(lambda: answers.bins(run, "run", start=start, stop=stop))[1]  # noqa: B023
            for _ in range(3)
        ]
        found[name] = 1e3 * statistics.median(walls)
    found["one step, ms"] = 1e3 * timed(lambda: answers.at_step(run, "run", steps // 2))[1]
    append(folder, run.layout, steps, 256)
    found["256 steps more, ms"] = 1e3 * timed(lambda: run.refresh(None))[1]
    found["memory of the process, MB"] = memory() - before
    took = timed(lambda: as_script(embed({"run": run})))
    found["HTML, s of CPU"], found["HTML, MB"] = took[1], len(took[2]) / 1e6
    return found


def per_step(parameters: int, steps: int) -> float:
    """Return microseconds that recording a step takes, a flow in one of 50 included."""
    flow = make_flow([1.0] * parameters)
    plain = make_sample(0, [1.0] * parameters, weight_norm=[1.0] * parameters)
    sampled = make_sample(0, [1.0] * parameters, layout=plain.layout, flow=flow)
    plain = make_sample(0, [1.0] * parameters, layout=plain.layout)
    with tempfile.TemporaryDirectory() as folder:
        writer = RecordingWriter(folder)
        writer.add(plain)
        start = time.process_time()
        for step in range(steps):
            writer.add(sampled if step % 50 == 0 else plain)
        writer.close()
        return (time.process_time() - start) / steps * 1e6


def main(argv: list[str] | None = None) -> None:
    """Measure everything and write a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one small recording")
    parser.add_argument("--output", default=str(RESULTS), help="file, or - for the screen")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(Path(args.one))))
        return
    sizes = QUICK if args.quick else SIZES
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, size in sizes.items():
            path = Path(folder) / name.replace(" ", "")
            make(path, *size)
            # A process of its own for each, so that memory is that of one recording.
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.view", "--one", str(path)],
                check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1],
            )  # fmt: skip
            rows[name] = json.loads(done.stdout)
    columns = list(rows)
    lines = [
        "# What the view costs",
        "",
        f"`python -m benchmarks.view{' --quick' if args.quick else ''}` on {platform.machine()}, "
        f"Python {platform.python_version()}, numpy {np.__version__}. Layers by steps; two",
        "parameters in each layer of the first two, one in the others. Times are of CPU but for",
        "the first row, which is of the clock.",
        "",
        "| | " + " | ".join(columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for key in rows[columns[0]]:
        cells = " | ".join(f"{rows[column][key]:.3g}" for column in columns)
        lines.append(f"| {key} | {cells} |")
    few, many = (100, 1000)
    lines += [
        "",
        f"Recording a step: {per_step(few, 2000):.0f} µs with {few} parameters, "
        f"{per_step(many, 2000):.0f} µs with {many}, one step in 50 with the flow through as many "
        "modules.",
        "",
    ]
    text = "\n".join(lines)
    if args.output == "-":
        print(text)
    else:
        Path(args.output).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
