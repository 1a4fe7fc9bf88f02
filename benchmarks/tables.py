"""Scores as rows of tables, and as the document that is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.scoring import Outcome, Score

#: What our own detectors are called in the tables.
OURS = "GradWatch"

SUMMARY = (
    "detector",
    "false alarms on healthy runs",
    "faulty runs with a right label",
    "exact label set",
    "micro F1",
    "macro F1",
    "right before half of the run",
    "median step",
)
#: The same for a terminal of 80 columns.
SHORT = ("detector", "false", "right", "exact", "micro", "macro", "early", "step")

LABEL = ("code", "runs", "precision", "recall", "F1", "false", "missed")
FAMILY = ("family", "healthy", "faulty", "exact")


def summary(scores: Mapping[str, Score]) -> list[list[str]]:
    """Return a row for each detector."""
    return [
        [
            name,
            _percent(s.false_alarms),
            _percent(s.right),
            _percent(s.exact),
            _number(s.micro_f1),
            _number(s.macro_f1),
            _percent(s.early),
            _dash(s.median_step, "{:g}"),
        ]
        for name, s in scores.items()
    ]


def by_label(ours: Score) -> list[list[str]]:
    """Return a row for each code: how often it is there, precision, recall, F1, false ones."""
    rows = []
    for code, (hits, false, misses) in ours.counts.items():
        numbers = (ours.precision(code), ours.recall(code), ours.f1(code))
        rows.append([code, str(hits + misses), *map(_number, numbers), str(false), str(misses)])
    return rows


def label_f1(scores: Mapping[str, Score]) -> list[list[str]]:
    """Return F1 of each detector for each code that any run requires."""
    labels = scores[OURS].labels
    return [[name, *(_number(s.f1(code)) for code in labels)] for name, s in scores.items()]


def by_family(ours: Score) -> list[list[str]]:
    """Return for each family how many runs are exact."""
    families: dict[str, list[Outcome]] = {}
    for outcome in ours.outcomes:
        families.setdefault(outcome.verdict.family, []).append(outcome)
    return [
        [
            family,
            str(sum(o.verdict.healthy for o in group)),
            str(sum(not o.verdict.healthy for o in group)),
            str(sum(o.exact for o in group)),
        ]
        for family, group in sorted(families.items())
    ]


def remedy_lines(ours: Score) -> list[str]:
    """Say how often advice is right, of all curable runs and of those that were recognised."""
    curable = ours.curable
    known = Score(tuple(o for o in curable if o.hits))
    return [
        f"{len(curable)} faulty runs have a remedy that was measured to work; "
        f"{len(known.outcomes)} of them got a right label.",
        f"First remedy works: {_percent(ours.first_remedy)} of all "
        f"({_percent(known.first_remedy)} of the recognised ones).",
        f"Any listed remedy works: {_percent(ours.any_remedy)} ({_percent(known.any_remedy)}).",
    ]


def losses(ours: Score) -> list[str]:
    """Describe every case that is not exact."""
    return [
        f"{o.verdict.case} ({o.verdict.family}, p {o.verdict.progress:.2f}): "
        f"{'missed ' + ', '.join(sorted(o.misses)) if o.misses else ''}"
        f"{'; ' if o.misses and o.false else ''}"
        f"{'false ' + ', '.join(sorted(o.false)) if o.false else ''}"
        for o in ours.outcomes
        if not o.exact
    ]


def detail(o: Outcome) -> str:
    """Return all that is known of one case, over several lines."""
    v = o.verdict
    reported = ", ".join(f"{code} at {step}" for code, step in o.codes.items()) or "nothing"
    remedies = ", ".join(f"{k} {p:.2f}" for k, p in sorted(v.remedies.items(), key=lambda r: -r[1]))
    return (
        f"{v.case}  [{v.family}]{' tricky' if v.tricky else ''}  p {v.progress:.3f}, "
        f"{o.trace.steps} steps, onset {v.onset}\n"
        f"    required  {', '.join(v.required) or 'nothing'}\n"
        f"    tolerated {', '.join(v.tolerated) or 'nothing'}\n"
        f"    reported  {reported}\n"
        f"    remedies  {remedies or 'none measured'}"
        + (f"\n    advised   {', '.join(str(key) for key in o.advice)}" if o.advice else "")
    )


def markdown(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in markdown."""
    lines = [f"## {title}", "", "| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def document(split: str, scores: Mapping[str, Score], tuned: Sequence[str] = ()) -> str:
    """Return the whole result in markdown, losses included.

    Args:
        split: Which runs.
        scores: Of every detector.
        tuned: What tuning changed, a line for each rival.
    """
    ours = scores[OURS]
    wrong = losses(ours)
    return (
        "\n\n".join(
            (
                f"# `python -m benchmarks.detection --split {split} --save`",
                f"{len(ours.outcomes)} runs, {len(ours.healthy)} healthy, "
                f"{len(ours.faulty)} faulty; labels and remedies measured, not named by a rule. "
                "Tuned rivals have the thresholds that are best for them on the tuning half.",
                markdown("Detectors", SUMMARY, summary(scores)),
                "## Thresholds that tuning changed\n\n" + _listed(tuned),
                markdown("F1 by code", ("detector", *ours.labels), label_f1(scores)),
                markdown(f"{OURS} by code", LABEL, by_label(ours)),
                "## Advice\n\n" + " ".join(remedy_lines(ours)),
                markdown("Families", FAMILY, by_family(ours)),
                f"## Missed and false ({len(wrong)})\n\n" + _listed(wrong),
            )
        )
        + "\n"
    )


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or "None."


def _percent(share: float) -> str:
    return _dash(100 * share, "{:.1f} %")


def _number(value: float) -> str:
    return _dash(value, "{:.2f}")


def _dash(value: float, form: str) -> str:
    return "-" if value != value else form.format(value)
