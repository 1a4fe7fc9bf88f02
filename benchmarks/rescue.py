"""Which policy keeps a dying run alive, and which harms one that is well.

    python -m benchmarks.rescue [--half fresh|held_out|tuning|seen|all] [--jobs 2] [--cost] [--save]

Dying runs (steps too long, NaN, corrupt batches, jumps of the learning rate, initial weights too
large) and runs that are well are measured to be so, see `benchmarks/saving/truth.py`; each is then
trained under every policy. Results of trials are kept in `benchmarks/.cache/rescue`; those with
our code in them are repeated when the package changes.
"""

from __future__ import annotations

import argparse
import fnmatch
import logging
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.saving.cost import costs
from benchmarks.saving.fresh import FRESH
from benchmarks.saving.held_out import HELD_OUT
from benchmarks.saving.patients import Patient
from benchmarks.saving.policies import AVAILABLE, FIXED, NONE, RESCUE, Policy
from benchmarks.saving.scoring import is_higher, score
from benchmarks.saving.table import SHORT, Half, data, document, losses, rows
from benchmarks.saving.trials import carry_out
from benchmarks.saving.truth import dying, judge, needed, seeds_of
from benchmarks.saving.tuning import TUNING

HALVES: dict[str, tuple[Patient, ...]] = {"fresh": FRESH, "held_out": HELD_OUT, "tuning": TUNING}
#: Those on which policies were tuned, or whose cases were looked at.
SEEN = ("held_out", "tuning")
RESULTS = Path(__file__).parent / "results"


def examine(name: str, patients: Sequence[Patient], policies: Sequence[Policy], jobs: int) -> Half:
    """Judge the candidates of one half, and train them under every policy.

    Args:
        name: Of the half.
        patients: Its candidates.
        policies: To be compared.
        jobs: Processes.
    """
    results = carry_out(f"{name}: truth", [k for p in patients for k in needed(p)], jobs)
    verdicts = {patient: judge(patient, results) for patient in patients}
    sick = [p for p in patients if verdicts[p] == "dying"]
    well = [p for p in patients if verdicts[p] == "well"]
    keys = [(patient, policy, patient.config.seed) for policy in FIXED for patient in sick]
    results |= carry_out(f"{name}: fixed settings", keys, jobs)
    cases = dying(sick, results)
    savable = [case.patient for case in cases if case.saviours]
    keys = []
    for policy in policies:
        treated = sick if policy in (NONE, RESCUE) else savable
        keys += [(p, policy, p.config.seed) for p in (*treated, *well)]
    results |= carry_out(f"{name}: policies", keys, jobs)
    keys = [
        (patient, policy, seed)
        for policy in policies
        for patient in well
        if policy == RESCUE or is_higher(results, patient, policy)
        for seed in seeds_of(patient)
    ]
    results |= carry_out(f"{name}: further seeds", keys, jobs)
    dropped = {p.name: v for p, v in verdicts.items() if v not in ("dying", "well")}
    half = Half(name, cases, well, dropped, results)
    half.scores = [score(policy, half.sick, well, results) for policy in policies]
    return half


def show(console: Console, half: Half) -> None:
    """Print the table of one half, and every run that our rescue loses."""
    table = Table(*SHORT, title_justify="left", title=(
        f"{half.name}: {len(half.savable)} dying runs that can be saved, {len(half.well)} well"
    ))  # fmt: skip
    for row in rows(half):
        table.add_row(*row)
    console.print(table)
    for line in losses(half):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    """Score, print, and write down if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=[*HALVES, "seen", "all"], default="fresh")
    parser.add_argument("--policies", nargs="+", default=["*"], help="glob patterns over names")
    parser.add_argument("--only", default="*", help="glob pattern over names of candidates")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--cost", action="store_true", help="measure step times (2 minutes)")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    args = parser.parse_args()
    for log in ("pytorch_lightning", "lightning.pytorch", "lightning_gradwatch"):
        logging.getLogger(log).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")

    policies = [
        p for p in AVAILABLE if p == NONE or any(fnmatch.fnmatch(p.name, a) for a in args.policies)
    ]
    started, console = time.perf_counter(), Console()
    measured = costs(policies) if args.cost else {}
    halves = []
    for name in {"all": tuple(HALVES), "seen": SEEN}.get(args.half, (args.half,)):
        patients = [p for p in HALVES[name] if fnmatch.fnmatch(p.name, args.only)]
        half = examine(name, patients, policies, args.jobs)
        half.costs = measured
        show(console, half)
        halves.append(half)
    if args.save:
        command = f"python -m benchmarks.rescue {shlex.join(sys.argv[1:])}"
        (RESULTS / "rescue.json").write_text(data(halves, command), encoding="utf-8")
        (RESULTS / "rescue.md").write_text(document(halves, command), encoding="utf-8")
        console.print("written: benchmarks/results/rescue.md, rescue.json")
    console.print(f"scored in {time.perf_counter() - started:.0f} s", style="dim")


if __name__ == "__main__":
    main()
