"""What watching costs: whole training steps with GradWatch, its parts and its peers beside plain.

    python -m benchmarks.overhead [--rounds 3] [--models mlp many] [--variants ours parts] [--save]

One process, one thread. In each round every variant gets a training of its own; all are alive at
once and make their steps in turn, in random order, so that what else the machine does falls on all
alike. A window of 50 steps is measured, which holds every kind of step that comes by itself: looks
into the backward pass, weight changes, logging. Times are CPU time of the process, threads that
write included, and time on the clock.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.cost import lanes, machine, memory
from benchmarks.cost.figures import Group, Sheet, sheet
from benchmarks.cost.models import MODELS
from benchmarks.cost.output import document, show
from benchmarks.cost.sheets import Table, tables
from benchmarks.cost.variants import AGAIN, PLAIN, VARIANTS, WARM_UP, Variant

RESULTS = Path(__file__).parent / "results" / "overhead.md"

METHOD = (
    "One process; every variant is a `Trainer.fit` of its own with torch's AdamW, nothing logged "
    "and a TensorBoard logger, and their steps take turns in random order. {rounds} rounds of "
    "{steps} measured steps after {warm_up} others. Each figure is the median over the rounds of "
    "each step, then the mean or the median over the steps."
)


def chosen(names: Sequence[str]) -> list[Variant]:
    """Return the variants of these groups or names, plain training and its control always.

    Raises:
        ValueError: A name is neither.
    """
    known = {*VARIANTS, *(variant.group for variant in VARIANTS.values())}
    for name in names:
        if name not in known:
            raise ValueError(f"{name!r} is none of {', '.join(sorted(known))}")
    return [
        variant
        for variant in VARIANTS.values()
        if not names or variant.name in (PLAIN, AGAIN, *names) or variant.group in names
    ]


def measure(
    models: Sequence[str], variants: Sequence[Variant], rounds: int, steps: int
) -> tuple[dict[str, Sheet], list[float]]:
    """Measure everything, with a progress bar.

    Returns:
        The figures of each model, and how busy the machine was at the end of each round.
    """
    lanes.silence()
    lanes.one_heap()
    found: dict[str, list[list[Group]]] = {model: [] for model in models}
    loads = [machine.load()]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    # Drawn between steps only: a thread that draws would be counted with the step it falls into.
    console = Console(file=sys.stderr)
    with Progress(
        *columns, TimeRemainingColumn(), auto_refresh=False, console=console,
        redirect_stdout=False, redirect_stderr=False,
    ) as bar:  # fmt: skip
        for round_ in range(rounds):
            for model in models:
                trainings = sum(len(group) for group in lanes.groups(model, variants))
                task = bar.add_task(
                    f"{model}, round {round_ + 1} of {rounds}",
                    total=trainings * (WARM_UP + steps),
                )

                def told(made: int, task: object = task) -> None:
                    bar.update(task, advance=made)  # type: ignore[arg-type]
                    bar.refresh()

                found[model].append(lanes.measure(model, variants, steps, round_, told))
                loads.append(machine.load())
                bar.remove_task(task)
                if not console.is_terminal:  # no bar is drawn there
                    console.print(f"{model}: round {round_ + 1} of {rounds} is done")
    return {model: sheet(done) for model, done in found.items()}, loads


def remember(models: Sequence[str], steps: int) -> Table:
    """Measure memory, each figure in a process of its own."""
    rows = []
    with Progress(console=Console(file=sys.stderr)) as bar:
        for model in bar.track(models, description="memory"):
            rows.append(memory.row(model, MODELS[model].title, steps))
    return Table(
        "Memory",
        memory.HEADS,
        rows,
        f"Peak of a process that trains for {steps} steps, median of three; and what we hold at "
        "its end. History and recording have their room from the start: they grow no further. A "
        "copy of the gradients would show in `more` as their size.",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, keep them if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50, help="measured steps of each training")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument(
        "--variants", nargs="+", default=[], metavar="NAME",
        help="groups (ours, parts, peers, inside) or names; all if not given",
    )  # fmt: skip
    parser.add_argument("--no-memory", action="store_true", help="leave memory out")
    parser.add_argument("--save", action="store_true", help=f"write results/{RESULTS.name}")
    args = parser.parse_args(argv)
    try:
        variants = chosen(args.variants)
    except ValueError as error:
        parser.error(str(error))
    if args.rounds < 1 or args.steps < 1:
        parser.error("--rounds and --steps must be at least 1")

    measured = machine.commit()
    sheets, loads = measure(args.models, variants, args.rounds, args.steps)
    shown = tables(sheets)
    if not args.no_memory:
        shown.append(remember(args.models, WARM_UP + args.steps))
    given = list(sys.argv[1:] if argv is None else argv)
    about = machine.about("benchmarks.overhead", given, measured, loads)
    if args.steps % 50:
        about += (
            " **The window is no whole number of intervals of 50 steps: what comes once in one is "
            "weighed wrongly.**"
        )
    show(shown)
    Console().print(about, highlight=False)
    if args.save:
        method = METHOD.format(rounds=args.rounds, steps=args.steps, warm_up=WARM_UP)
        text = document("What watching costs", about, method, shown)
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
