"""How cost grows with layers and with steps, after the gradients were read.

    python -m benchmarks.scaling [--steps 1000000] [--save]

Synthetic samples pass the history, the detectors, the recording and the loggers' reporter, as the
engine hands them on; a real training with 1,000 layers says whether that is true to life. Then a
run of a million steps: what it holds in memory over time, and what it leaves on disk.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks.cost import growth, long_run, machine, real
from benchmarks.cost.lanes import silence
from benchmarks.cost.output import document, show
from benchmarks.cost.parts import PARTS
from benchmarks.cost.sheets import Table

RESULTS = Path(__file__).parent / "results" / "scaling.md"

#: Layers, and cycles of 50 steps that are measured.
SIZES = {100: 20, 1_000: 10, 10_000: 6}

#: Layers of the real training and of the long run.
REAL, LONG = 1_000, 100

METHOD = (
    "CPU time of one thread. A layer has a weight and a bias; one step in 50 brings the flow "
    "through as many modules, two in 50 a weight change, one in 50 is logged. Reading the "
    "gradients is not in it: `benchmarks.overhead` measures that."
)


def by_size(costs: Mapping[int, growth.Cost]) -> list[Table]:
    """Return tables of the cost of a step: by part, and by detector."""
    sizes = list(costs)
    heads = ["µs of CPU a step", *(f"{n:,} layers" for n in sizes)]
    grows = len(sizes) > 1
    if grows:
        heads += ["µs, a line through them", "exponent"]

    def row(title: str, numbers: Sequence[float]) -> list[str]:
        cells = [title, *(f"{number:,.0f}" for number in numbers)]
        if grows:
            found = growth.growth(sizes, numbers)
            cells += [str(found), f"{found.exponent:.2f}"]
        return cells

    whole = [row(part, [cost.whole[part] for cost in costs.values()]) for part in PARTS]
    whole.append(row("together", [sum(cost.whole.values()) for cost in costs.values()]))
    usual = [sum(cost.usual.values()) for cost in costs.values()]
    whole.append(row("together, the usual step", usual))
    first = next(iter(costs.values()))
    detectors = [
        row(name, [cost.detectors[name] for cost in costs.values()]) for name in first.detectors
    ]
    note = (
        "Means over a cycle of 50 steps, the usual step over those that neither look closer nor "
        "log. As in a run without actions, 16 steps are judged in a row, with empty caches at the "
        "first. The exponent is that of the step "
        "from the second largest size to the largest: 1 is linear; below 1 a fixed part still "
        "shows."
    )
    return [
        Table("A step, by part", heads, whole, note if grows else ""),
        Table("Detection, by detector", heads, detectors),
    ]


def checked(layers: int, synthetic: growth.Cost, taken: Mapping[str, float]) -> Table:
    """Return the table that compares synthetic samples with a real training."""
    rows = [[part, f"{synthetic.whole[part]:,.0f}", f"{taken[part]:,.0f}"] for part in (*PARTS,)]
    rows.append(
        ["together", f"{sum(synthetic.whole.values()):,.0f}", f"{sum(taken.values()):,.0f}"]
    )
    return Table(
        f"A real training with {layers:,} layers",
        ["µs of CPU a step", "synthetic samples", "real training"],
        rows,
        "In a real training the model has just been through the caches. The diagnosis is timed "
        "with the synthetic samples only; it costs nothing where nothing is found.",
    )


def over_time(layers: int, stocks: Sequence[long_run.Stock]) -> Table:
    """Return the table of the long run, a column for each time that stock was taken."""
    last = stocks[-1]
    cells = layers * last.steps
    tables, flow = last.tables / cells, last.flow / cells
    rows = [
        ["µs of CPU a step", *(f"{stock.per_step:.0f}" for stock in stocks)],
        *(
            [f"{title} in memory, kB", *(f"{getattr(stock, part) / 1e3:,.0f}" for stock in stocks)]
            for title, part in long_run.MEMORY.items()
        ),
        ["the process in memory, MB", *(f"{stock.process / 1e6:,.0f}" for stock in stocks)],
        *(
            [f"{title} on disk, MB", *(f"{getattr(stock, part) / 1e6:,.1f}" for stock in stocks)]
            for title, part in long_run.DISK.items()
        ),
        ["findings told", *(f"{stock.findings}" for stock in stocks)],
    ]
    note = (
        f"A kB is 1,000 bytes. On disk the recording takes {tables + flow:.1f} bytes a layer and "
        f"step, {tables:.1f} for the tables and {flow:.1f} for the flow; TensorBoard takes "
        f"{last.tensorboard / last.steps:.0f} bytes a step whatever the layers. One step in 997 "
        "has norms a hundred times as high, one in 9,973 a NaN. No model runs between these steps: "
        "caches are warm, unlike above."
    )
    heads = ["after so many steps", *(f"{stock.steps:,}" for stock in stocks)]
    return Table(f"{last.steps:,} steps of {layers} layers", heads, rows, note)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, keep them if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--cycles", type=int, help="measured cycles of 50 steps of each size")
    parser.add_argument("--real", type=int, default=REAL, help="layers of the real training; or 0")
    parser.add_argument("--steps", type=int, default=1_000_000, help="of the long run; or 0")
    parser.add_argument("--save", action="store_true", help=f"write results/{RESULTS.name}")
    args = parser.parse_args(argv)
    if min(args.layers) < 1 or args.real < 0 or args.steps < 0:
        parser.error("--layers must be at least 1, --real and --steps at least 0")
    silence()
    measured, loads = machine.commit(), [machine.load()]
    costs: dict[int, growth.Cost] = {}
    shown: list[Table] = []
    # Drawn between steps only: a thread that draws would take time from what is measured.
    console = Console(file=sys.stderr)
    with Progress(console=console, auto_refresh=False) as bar:
        for layers in sorted({*args.layers, *([args.real] if args.real else [])}):
            cycles = args.cycles or SIZES.get(layers, 6)
            task = bar.add_task(f"{layers:,} layers", total=cycles * growth.CYCLE)

            def told(made: int, task: object = task) -> None:
                bar.update(task, advance=made)  # type: ignore[arg-type]
                bar.refresh()

            costs[layers] = growth.cost(layers, cycles, told)
            loads.append(machine.load())
            if not console.is_terminal:  # no bar is drawn there
                console.print(f"{layers:,} layers are done")
        shown += by_size(costs)
        if args.real:
            cycles = min(args.cycles or 3, 3)
            task = bar.add_task(f"training {args.real:,} layers", total=1)
            bar.refresh()
            taken = real.measure(args.real, growth.WARM_UP, cycles, growth.CYCLE)
            shown.append(checked(args.real, costs[args.real], taken))
            bar.update(task, advance=1)
        if args.steps:
            task = bar.add_task(f"{args.steps:,} steps", total=args.steps)

            def walked(made: int) -> None:
                bar.update(task, advance=made)
                bar.refresh()

            shown.append(over_time(LONG, list(long_run.run(LONG, args.steps, walked))))
            loads.append(machine.load())
    given = list(sys.argv[1:] if argv is None else argv)
    about = machine.about("benchmarks.scaling", given, measured, loads)
    show(shown)
    Console().print(about, highlight=False)
    if args.save:
        text = document("How cost grows with layers and steps", about, METHOD, shown)
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
