"""What articles recommend against vanishing and exploding gradients, measured on four patients.

Twenty-one remedies, from ReLU to more data, are each tried alone on a deep sigmoid network, a plain
stack of convolutions, a recurrent network and a network that explodes. For each pair: how much of
the error signal reaches the first layer, what GradWatch finds, the final accuracy, and from that
whether the remedy helps. Some of what one reads does not hold: what keeps a network from
overfitting, or its steps small, does not bring a lost signal back (examples/remedies.md).

    python -m examples.remedies --quick
    python -m examples.remedies --seeds 2 --markdown remedies.md --figure remedies.svg

Who says what, with references: treatments.py. The patients: patients.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

if not __package__:  # started as `python examples/remedies.py`
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from examples import remedies_shown as shown
from examples.options import quiet
from examples.patients import PATIENTS, Dose, error_signal, treat
from examples.treatments import TREATMENTS
from examples.verdicts import Cell, Outcome, judge
from lightning_gradwatch import Severity

#: A patient, a remedy ("" for none), and a seed.
Trial = tuple[str, str, int]


def run(trial: Trial, quick: bool) -> Outcome:
    """Train one patient under one remedy with one seed."""
    patient, remedy, seed = trial
    quiet()
    dose = next((t.doses[patient] for t in TREATMENTS if t.name == remedy), Dose())
    assert isinstance(dose, Dose)
    result = treat(patient, dose, seed, quick)
    history = result.watch.history
    over = 0.8 * history.steps[-1]  # later than that, it counts as there at the end
    found = [f for f in result.watch.findings if f.severity >= Severity.WARNING]
    codes = (f.code if f.last_step >= over else f"({f.code})" for f in found)
    return Outcome(result.score, *error_signal(history), tuple(dict.fromkeys(codes)))


def trials(seeds: int) -> list[Trial]:
    """Return everything to be tried, the untreated patients first."""
    pairs = [(patient, "") for patient in PATIENTS]
    pairs += [(p, t.name) for t in TREATMENTS for p in PATIENTS if isinstance(t.doses[p], Dose)]
    return [(*pair, seed) for pair in pairs for seed in range(seeds)]


def measure(todo: Sequence[Trial], quick: bool, workers: int) -> Iterator[tuple[Trial, Outcome]]:
    """Yield each trial's outcome as it comes."""
    if workers == 1:
        yield from ((trial, run(trial, quick)) for trial in todo)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run, trial, quick): trial for trial in todo}
        for done in as_completed(running):
            yield running[done], done.result()


def judged(outcomes: dict[Trial, Outcome]) -> dict[tuple[str, str], Cell]:
    """Return a cell for each patient and remedy, over all seeds."""

    def of(patient: str, remedy: str) -> list[Outcome]:
        return [o for (p, r, _), o in outcomes.items() if (p, r) == (patient, remedy)]

    pairs = dict.fromkeys((patient, remedy) for patient, remedy, _ in outcomes)
    return {(p, r): judge(of(p, r), of(p, "")) for p, r in pairs}


def make_arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.remedies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=2, help="how many, from 0 (default: 2)")
    parser.add_argument("--quick", action="store_true", help="six steps, one seed: no verdict")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--markdown", type=Path, help="write the table there")
    parser.add_argument("--figure", type=Path, help="draw it there (.svg, .png; needs matplotlib)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Try everything; print the table, write and draw it where asked."""
    parser = make_arguments()
    args = parser.parse_args(argv)
    if args.quick and (args.markdown or args.figure):
        parser.error("--quick judges nothing: no --markdown and no --figure with it")
    quiet()
    todo = trials(1 if args.quick else args.seeds)
    console = Console()
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    outcomes: dict[Trial, Outcome] = {}
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("remedies", total=len(todo))
        for trial, outcome in measure(todo, args.quick, args.workers):
            outcomes[trial] = outcome
            progress.update(task, advance=1, description=f"{trial[1] or 'untreated'} · {trial[0]}")
    cells = judged(outcomes)
    wide = Console(width=max(console.width, shown.WIDTH))
    wide.print(shown.table(cells, verdicts=not args.quick))
    if args.quick:
        console.print("--quick trains for six steps: enough to see that it runs, not to judge.")
    if args.markdown:
        args.markdown.parent.mkdir(parents=True, exist_ok=True)
        args.markdown.write_text(shown.markdown(cells, args.seeds), encoding="utf-8")
    if args.figure:
        args.figure.parent.mkdir(parents=True, exist_ok=True)
        shown.figure(cells, args.figure)


if __name__ == "__main__":
    main()
