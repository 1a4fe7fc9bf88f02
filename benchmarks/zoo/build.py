"""Builds the zoo: judges every candidate, and records the runs that are kept.

python -m benchmarks.zoo.build [--split tuning|held_out|fresh] [--only PATTERN] [--jobs 2]
"""

from __future__ import annotations

import argparse
import fnmatch
import multiprocessing
import pickle
import time
import traceback
from collections import Counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.zoo.catalogue import SPLITS
from benchmarks.zoo.config import Case
from benchmarks.zoo.store import read_verdicts, trace_path, verdict_of, write_verdicts

#: Raised when what is measured changes, so that everything is measured again.
VERSION = 2


def _digest(case: Case) -> str:
    return f"{VERSION}-{case.digest()}"


def _work(job: tuple[str, Case, bool]) -> tuple[str, dict[str, Any] | None]:
    """Let an error in one case not cost the others."""
    try:
        return _judge_and_record(*job)
    except Exception:
        print(f"{job[1].name}: FAILED\n{traceback.format_exc()}", flush=True)
        return job[1].name, None


def _judge_and_record(split: str, case: Case, judged: bool) -> tuple[str, dict[str, Any] | None]:
    """Judge and record one case in a process of its own; only record it, if that is all."""
    from benchmarks.zoo.train import record
    from benchmarks.zoo.truth import judge, plain

    entry: dict[str, Any] | None = None
    if not judged:
        start = time.process_time()
        outcome = judge(case)
        entry = {"digest": _digest(case), "family": case.family, **plain(outcome)}
        print(f"{case.name}: {time.process_time() - start:.1f} s", flush=True)
    if entry is None or entry["verdict"] is not None:
        path = trace_path(split, case.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(pickle.dumps(record(case.name, case.config), protocol=5))
        temporary.replace(path)
    return case.name, entry


def build(split: str, only: str = "*", jobs: int = 2, retrace: bool = False) -> None:
    """Build a split; cases that are as they were are left alone.

    Args:
        split: "tuning", "held_out" or "fresh".
        only: Glob pattern over names.
        jobs: Processes.
        retrace: Record again what is kept, without judging again.
    """
    cases = {case.name: case for case in SPLITS[split]}
    known = {name: entry for name, entry in read_verdicts(split).items() if name in cases}
    work = []
    for name, case in cases.items():
        if not fnmatch.fnmatch(name, only):
            continue
        judged = name in known and known[name]["digest"] == _digest(case)
        kept = judged and verdict_of(known[name]) is not None
        missing = kept and (retrace or not trace_path(split, name).exists())
        if not judged or missing:
            work.append((split, case, judged))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns) as progress, multiprocessing.get_context("spawn").Pool(jobs) as pool:
        bar = progress.add_task(split, total=len(work))
        for i, (name, entry) in enumerate(pool.imap_unordered(_work, work)):
            if entry is not None:
                known[name] = entry
            if i % 10 == 9:
                write_verdicts(split, known)
            progress.advance(bar)
    write_verdicts(split, known)
    _print(split, known)


def _print(split: str, known: dict[str, dict[str, Any]]) -> None:
    table = Table(title=f"{split}: {len(known)} candidates")
    for column in ("label", "kept", "tricky"):
        table.add_column(column)
    verdicts = [v for v in (verdict_of(entry) for entry in known.values()) if v is not None]
    labels = Counter(", ".join(v.required) or "healthy" for v in verdicts)
    for label, count in sorted(labels.items()):
        tricky = sum(v.tricky for v in verdicts if (", ".join(v.required) or "healthy") == label)
        table.add_row(label, str(count), str(tricky or ""))
    table.add_section()
    for name, entry in sorted(known.items()):
        if entry["verdict"] is None:
            table.add_row(f"dropped {name}", entry["reason"], str(entry["progress"]))
    Console().print(table)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=[*SPLITS, "all"], default="all")
    parser.add_argument("--only", default="*", help="glob pattern over names of cases")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--retrace", action="store_true", help="record again what is kept")
    options = parser.parse_args()
    for split in SPLITS if options.split == "all" else [options.split]:
        if SPLITS[split]:
            build(split, options.only, options.jobs, options.retrace)


if __name__ == "__main__":
    main()
