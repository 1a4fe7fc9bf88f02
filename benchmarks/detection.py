"""What is found and what is missed: our detectors and the rules of the field on labelled runs.

    python -m benchmarks.detection [--split held_out|tuning|fresh] [--misses] [--save]

Labels and working remedies are measured (see `benchmarks/zoo`). Our detectors are replayed on what
GradWatch handed to them when the runs were made, the rivals on what their hooks would have seen;
these appear with their published thresholds and with the best ones the tuning half has for them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.rivals import RULES
from benchmarks.rivals.tuning import tune
from benchmarks.scoring import Report, Score, score
from benchmarks.tables import (
    LABEL,
    OURS,
    SHORT,
    by_label,
    detail,
    document,
    remedy_lines,
    summary,
)
from benchmarks.zoo.advice import key_of
from benchmarks.zoo.trace import Trace, Verdict
from lightning_gradwatch.detectors import default_detectors
from lightning_gradwatch.diagnosis import Diagnosis
from lightning_gradwatch.finding import Severity

Pairs = Sequence[tuple[Trace, Verdict]]


def replay(trace: Trace) -> Report:
    """Feed a run to fresh detectors and a diagnosis, as the engine does.

    A code counts from the step at which the user was told of it as a warning, which may be later
    than the first step of the finding.
    """
    detectors, diagnosis = default_detectors(), Diagnosis(trace.facts)
    told: dict[str, int] = {}
    for sample in trace.samples:
        diagnosis.see(sample)
        found = [finding for detector in detectors for finding in detector.update(sample)]
        for finding in diagnosis.observe(found, sample.step):
            if finding.severity >= Severity.WARNING:
                told.setdefault(finding.code, sample.step)
    codes: dict[str, int] = {}
    advice: dict[str, tuple[str | None, ...]] = {}
    for finding in diagnosis.findings:  # in order of onset: the first one of a code advises
        if finding.severity >= Severity.WARNING:
            codes[finding.code] = told.get(finding.code, finding.first_step)
            advice.setdefault(finding.code, tuple(map(key_of, finding.remedies)))
    return Report(codes, advice)


def score_all(pairs: Pairs, tuning: Pairs) -> tuple[dict[str, Score], list[str]]:
    """Score ours, and every rival as published and as tuned; say what tuning changed."""
    scores, changes = {OURS: score(pairs, replay)}, []
    for rule in RULES:
        params = tune(rule, tuning)
        scores[f"{rule.name}, published"] = score(pairs, rule.report)
        scores[f"{rule.name}, tuned"] = score(pairs, partial(rule.report, params=params))
        new = {k: v for k, v in vars(params).items() if v != getattr(rule.params, k)}
        changes.append(f"{rule.name}: {', '.join(f'{k} {v:g}' for k, v in new.items()) or 'none'}")
    return scores, changes


def _show(console: Console, title: str, heads: Sequence[str], rows: list[list[str]]) -> None:
    table = Table(*heads, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row, style="bold" if row[0] == OURS else None)
    console.print(table)


def main() -> None:
    """Score, print, and write down if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=("held_out", "tuning", "fresh"), default="held_out")
    parser.add_argument("--misses", action="store_true", help="print every case that is wrong")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    parser.add_argument("--ours", action="store_true", help="leave the rivals out")
    args = parser.parse_args()

    from benchmarks.zoo.store import load

    pairs = load(args.split)
    started = time.perf_counter()
    changes: list[str] = []
    if args.ours:
        scores = {OURS: score(pairs, replay)}
    else:
        scores, changes = score_all(pairs, pairs if args.split == "tuning" else load("tuning"))
    console, ours = Console(), scores[OURS]
    _show(console, f"{args.split}: {len(pairs)} runs", SHORT, summary(scores))
    _show(console, f"{OURS} by code", LABEL, by_label(ours))
    console.print("\n".join(remedy_lines(ours)), highlight=False)
    if args.misses:
        for outcome in ours.outcomes:
            if not outcome.exact:
                console.print(detail(outcome), highlight=False, markup=False, soft_wrap=True)
    if args.save:
        name = f"detection_{args.split}.md"
        text = document(args.split, scores, changes)
        (Path(__file__).parent / "results" / name).write_text(text, encoding="utf-8")
        console.print(f"written: benchmarks/results/{name}")
    console.print(f"scored in {time.perf_counter() - started:.1f} s", style="dim")


if __name__ == "__main__":
    main()
