"""Reading gradient norms, as a multiple of the least that it can take.

    python -m benchmarks.reading [--models mlp many] [--rounds 40] [--save]

After a real backward pass one method reads the gradients, in random order; the figure is the median
CPU time of the call. The bound is one read of as many bytes out of one buffer, plus the walk from
each parameter to its gradient's memory in C++ (compiled on the spot against this torch). Nothing
that reads gradients where they are can take less.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities import grad_norm
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm

from benchmarks.cost.machine import about, commit, load
from benchmarks.cost.models import MODELS, build
from benchmarks.tables import markdown
from lightning_gradwatch import native
from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.probe.host import Host
from lightning_gradwatch.probe.norms import NormReader
from lightning_gradwatch.probe.parameters import ParameterMap
from lightning_gradwatch.probe.probe import Probe, StepContext
from lightning_gradwatch.settings import Settings

RESULT = Path(__file__).parent / "results" / "reading.md"

#: Rounds of each model, as many as a minute or two allow.
ROUNDS = {"mlp": 60, "many": 40, "resnet": 6, "transformer": 6, "big": 8}

WALK = """
#include <torch/extension.h>
static std::vector<at::Tensor> held;
void hold(std::vector<at::Tensor> parameters) { held = std::move(parameters); }
int64_t walk() {
    int64_t sum = 0;
    for (const auto& p : held) {
        const auto& grad = p.grad();
        if (grad.defined()) sum += *reinterpret_cast<const unsigned char*>(grad.const_data_ptr());
    }
    return sum;
}
"""


@dataclass
class Row:
    """What one method took on one model: microseconds of CPU, call by call."""

    name: str
    times: list[float]

    @property
    def median(self) -> float:
        """Median microseconds."""
        return statistics.median(self.times)


def walker() -> Any:
    """Compile the walk; this takes about half a minute."""
    from torch.utils.cpp_extension import load_inline

    return load_inline("gradwatch_walk", WALK, functions=["hold", "walk"])


class Bench:
    """The methods that read the gradients of one model.

    Args:
        model: The model.
        walk: What `walker` returned.
    """

    def __init__(self, model: nn.Module, walk: Any) -> None:
        self.model = model
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters)
        self.map = ParameterMap(model)
        self.reader = NormReader(Host())
        self.probe = Probe(Settings(), _raise)
        self.probe.attach(model)
        self.flat = torch.zeros(sum(p.numel() for p in self.parameters))
        self._make: Callable[[], Any] | None = None
        self.walk = walk
        walk.hold(self.parameters)

    def backward(self) -> None:
        """Make gradients, in new memory as `zero_grad` leaves it to autograd."""
        for parameter in self.parameters:
            parameter.grad = None
        self.model().backward()

    def methods(self) -> dict[str, Callable[[], object]]:
        """Return all methods by name; the first two are the bound."""
        return {
            "walk": self.walk.walk,
            "read": self._read_flat,
            "GradWatch, compiled": lambda: self._norms(True),
            "GradWatch, torch alone": lambda: self._norms(False),
            "`get_total_norm` (one number)": lambda: get_total_norm(
                [p.grad for p in self.parameters if p.grad is not None], foreach=True
            ).item(),
            "Lightning `grad_norm`": lambda: grad_norm(self.model, 2),
            "`clip_grad_norm_(foreach=True)`": lambda: clip_grad_norm_(
                self.parameters, 1e-9, foreach=True
            ),
            "watch and clip, compiled": lambda: self._clip(1e-9, True),
            "watch and clip, torch alone": lambda: self._clip(1e-9, False),
            "watch and clip, nothing to clip": lambda: self._clip(1e9, True),
        }

    def before(self, name: str) -> None:
        """Prepare what is not to be timed."""
        if name == "read":
            torch.cat([p.grad.reshape(-1) for p in self.parameters], out=self.flat)  # type: ignore[union-attr]

    def _read_flat(self) -> None:
        if native.compiled is None:
            torch.dot(self.flat, self.flat)
        else:
            native.compiled.norms((self.flat,), np.zeros(1), 2, sys.maxsize)

    def _norms(self, compiled: bool) -> Any:
        with _Reader(compiled):
            gradients = self.map.gradients(self.optimizer)
            return self.reader.read(gradients.grads, gradients.held.keys)

    def _clip(self, max_norm: float, compiled: bool) -> None:
        with _Reader(compiled):
            taken, raw, fetched = self.probe.look(StepContext(0, self.optimizer))
            self._make = partial(taken.make, raw, fetched)
            brief: Any = taken.brief(raw, fetched, lambda: self._make()[0])
            named = self.probe.parameters.named_gradients
            Training(brief, self.optimizer, lambda: named(self.optimizer)).clip_grad_norm(max_norm)
            self.probe.after_step()

    def later(self) -> int:
        """Make the sample that a method has put off, behind others as it would be; nanoseconds."""
        make, self._make = self._make, None
        if make is None:
            return 0
        make()
        start = time.thread_time_ns()
        make()
        return time.thread_time_ns() - start


class _Reader:
    """Takes the compiled reader away for a while."""

    _found = native.compiled

    def __init__(self, compiled: bool) -> None:
        native.compiled = self._found if compiled else None

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        native.compiled = self._found


def _raise(error: Exception) -> None:
    raise error


def measure(name: str, rounds: int, walk: Any, tick: Callable[[], object]) -> list[Row]:
    """Time every method on one model, `rounds` times each."""
    bench = Bench(build(name), walk)
    methods = bench.methods()
    rows = {title: Row(title, []) for title in methods}
    for round_ in range(rounds + 1):
        for title in random.Random(round_).sample(list(methods), len(methods)):
            bench.backward()
            with torch.no_grad():
                bench.before(title)
                call = methods[title]
                start = time.thread_time_ns()
                call()
                taken = time.thread_time_ns() - start + bench.later()
            if round_:  # the first round warms up
                rows[title].times.append(taken / 1e3)
            tick()
    bench.probe.detach()
    walk.hold(list[Tensor]())
    return list(rows.values())


def table(results: dict[str, list[Row]]) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows: microseconds, and multiples of the bound."""
    heads = ["CPU time, µs (multiple of the bound)", *(MODELS[name].title for name in results)]
    bounds = {name: rows[0].median + rows[1].median for name, rows in results.items()}
    lines = [["bound: read + walk"]]
    for name, (walk, read, *_) in results.items():
        lines[0].append(f"{bounds[name]:,.0f} ({read.median:,.0f} + {walk.median:,.0f})")
    for i, row in enumerate(next(iter(results.values()))[2:], 2):
        cells = [
            f"{rows[i].median:,.0f} ({rows[i].median / bounds[name]:.2f}x)"
            for name, rows in results.items()
        ]
        lines.append([row.name, *cells])
    return heads, lines


def main() -> None:
    """Measure and print; keep the table with --save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, help="of each method; default by model, 6 to 60")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    if native.compiled is None:
        raise SystemExit("the compiled reader is not there: pip install -e . with a C compiler")
    torch.set_num_threads(1)
    walk, loads, results, measured = walker(), [load()], {}, commit()
    rounds = {name: args.rounds or ROUNDS[name] for name in args.models}
    with Progress(transient=True) as progress:
        for name in args.models:
            task = progress.add_task(name, total=(rounds[name] + 1) * 10)
            results[name] = measure(name, rounds[name], walk, lambda t=task: progress.advance(t))  # type: ignore[misc]
            loads.append(load())
    heads, lines = table(results)
    paragraph = about("benchmarks.reading", sys.argv[1:], measured, loads)
    Console().print(markdown("Reading norms", heads, lines), markup=False, soft_wrap=True)
    print(paragraph)
    if args.save:
        text = "\n\n".join(
            (
                "# What reading gradient norms costs",
                paragraph,
                f"Medians of {', '.join(f'{n} ({MODELS[m].title})' for m, n in rounds.items())} "
                "calls, each after a backward pass of its own, in random order. The bound is one "
                "read of as many bytes from one buffer, plus the walk from each parameter to its "
                "gradient's memory in C++; each is measured by itself, so that both in one go may "
                "take less. `get_total_norm` and `clip_grad_norm_` yield one number "
                "for all parameters, the others one for each. Watch and clip is all that the probe "
                "does on a step, with the multiplication where there is something to clip, and the "
                "sample, which is made later, behind others.",
                markdown("Norms, and clipping", heads, lines),
            )
        )
        RESULT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
