"""Try every switch alone and print what it does: the tables of README.md come from here.

For each run: the final score, how much of the gradient arrives early (in depth: the norm at the
first layer over that at the last; in time: the mean norm over the first tenth of the time steps
over that over the last tenth), what GradWatch found, and the CPU seconds it took.

    python -m examples.measure mlp > table.md
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

if not __package__:  # started as `python examples/measure.py`
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from examples import classic_failures, mlp, residual, rnn
from examples.options import quiet
from examples.result import Result
from lightning_gradwatch import History, Severity

#: What is tried, by example: the sick default first, then each switch.
RUNS: dict[ModuleType, tuple[str, ...]] = {
    mlp: (
        "",
        "--activation tanh",
        "--activation relu",
        "--activation leaky_relu",
        "--activation prelu",
        "--activation relu --init he",
        "--activation tanh --init xavier",
        "--init xavier",
        "--init he",
        "--init small",
        "--init large",
        "--batch-norm",
        "--weight-norm",
        "--dropout 0.2",
        "--optimizer momentum",
        "--optimizer adam",
        "--optimizer rmsprop",
        "--optimizer adagrad",
        "--lr 0.5",
        "--lr-schedule exponential",
        "--lr-schedule linear",
        "--lr-schedule cosine",
        "--clip 1",
        "--depth 2",
        "--activation relu --init large",
        "--activation relu --init large --clip 1",
        "--activation relu --init large --batch-norm",
    ),
    residual: (
        "",
        "--residual",
        "--batch-norm",
        "--residual --batch-norm",
        "--depth 4",
        "--optimizer momentum",
        "--lr 0.01",
        "--clip 1",
    ),
    rnn: (
        "",
        "--batch-norm",
        "--lr 0.5",
        "--optimizer adam",
        "--recurrent-init orthogonal",
        "--recurrent-init identity",
        "--cell rnn_relu",
        "--cell rnn_relu --recurrent-init default",
        "--cell lstm",
        "--cell lstm --gate-bias 0",
        "--cell lstm --optimizer adam",
        "--cell gru",
        "--cell gru --optimizer adam",
        "--task adding",
        "--task adding --batch-norm",
        "--task adding --recurrent-init orthogonal",
        "--task adding --cell rnn_relu",
        "--task adding --cell lstm",
        "--task adding --cell gru",
    ),
    classic_failures: (
        "--case overflow",
        "--case overflow --clip 1",
        "--case overflow --lr 1e-7",
        "--case overflow --scale",
        "--case saturation",
        "--case saturation --scale",
        "--case saturation --init xavier",
        "--case saturation --optimizer adam",
        "--case saturation --scale --init xavier",
    ),
}


def early_over_late(history: History) -> tuple[float, float]:
    """Return how much of the gradient arrives early: at the first step, and in the run's median.

    Through time where the model has a recurrent layer, else through depth.
    """
    profiles = [p.grad_norm for _, flow in history.flow for p in flow.time_profiles]
    if profiles:
        tenth = max(1, len(profiles[0]) // 10)
        ratios = np.array([p[:tenth].mean() / p[-tenth:].mean() for p in profiles])
        spaced = np.array([step % 50 == 0 for step, flow in history.flow if flow.time_profiles])
        return float(ratios[0]), float(np.median(ratios[spaced]))
    norms = history.layer_grad_norm
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = norms[:, 0] / norms[:, -1]
    return float(ratios[0]), float(np.nanmedian(ratios))


def found(result: Result) -> str:
    """Return the codes that GradWatch found, those of severity INFO in brackets."""
    codes = {
        finding.code if finding.severity >= Severity.WARNING else f"({finding.code})": None
        for finding in result.watch.findings
    }
    return ", ".join(codes) or "healthy"


def row(example: ModuleType, switches: str, more: Sequence[str] = ()) -> str:
    """Train once and return a row of the table."""
    args = example.make_arguments().parse_args([*shlex.split(switches), *more])
    start = time.process_time()
    result = example.train(args)
    seconds = time.process_time() - start
    first, median = early_over_late(result.watch.history)
    score = (
        f"{result.score:.1%}" if result.model.score_name == "accuracy" else f"{result.score:.3f}"
    )
    switches = f"`{switches}`" if switches else "(default)"
    return (
        f"| {switches} | {score} | {first:.0e} | {median:.0e} | {found(result)} | {seconds:.0f} |"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print one table for each example named, or for all; other words go to each run."""
    words = list(sys.argv[1:] if argv is None else argv)
    names = {module.__name__.rpartition(".")[2]: module for module in RUNS}
    chosen = [names[w] for w in words if w in names] or list(RUNS)
    more = [w for w in words if w not in names]
    quiet()
    torch.set_num_threads(1)  # so that CPU seconds are seconds on an idle machine
    for example in chosen:
        print(f"\n### {example.__name__.rpartition('.')[2]}\n")
        print("| switches | score | early/late, first step | median | found | CPU s |")
        print("| --- | --- | --- | --- | --- | --- |")
        for switches in RUNS[example]:
            print(row(example, switches, more), flush=True)


if __name__ == "__main__":
    main()
