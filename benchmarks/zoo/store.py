"""Where traces and verdicts lie, and how they are read."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

from benchmarks.zoo.trace import Trace, Verdict

BENCHMARKS = Path(__file__).parent.parent


def trace_path(split: str, case: str) -> Path:
    """Return where the trace of a case lies; not under version control."""
    return BENCHMARKS / ".cache" / "zoo" / split / f"{case}.pkl"


def verdicts_path(split: str) -> Path:
    """Return where the verdicts of a split lie; committed."""
    return BENCHMARKS / "results" / f"zoo_{split}.json"


def read_verdicts(split: str) -> dict[str, dict[str, Any]]:
    """Return everything measured, by case; empty before the first build."""
    path = verdicts_path(split)
    return json.loads(path.read_text())["cases"] if path.exists() else {}


def write_verdicts(split: str, cases: dict[str, dict[str, Any]]) -> None:
    """Write them sorted, one case a line, so that a diff shows which verdict changed."""
    path = verdicts_path(split)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(
        f'"{name}": {json.dumps(cases[name], sort_keys=True)}' for name in sorted(cases)
    )
    text = f'{{"split": "{split}", "cases": {{\n{lines}\n}}}}\n'
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def verdict_of(entry: dict[str, Any]) -> Verdict | None:
    """Return the verdict of a stored case; None if it was dropped."""
    values = entry["verdict"]
    if values is None:
        return None
    tuples = {name: tuple(values[name]) for name in ("required", "tolerated")}
    return Verdict(**{**values, **tuples})


def read_trace(split: str, case: str) -> Trace:
    """Return the trace of a case."""
    with trace_path(split, case).open("rb") as file:
        trace = pickle.load(file)
    assert isinstance(trace, Trace)
    return trace


def load(split: str) -> list[tuple[Trace, Verdict]]:
    """Return the kept cases of a split, by name.

    Raises:
        FileNotFoundError: It has not been built: `python -m benchmarks.zoo.build`.
    """
    found = []
    for name, entry in sorted(read_verdicts(split).items()):
        verdict = verdict_of(entry)
        if verdict is not None:
            found.append((read_trace(split, name), verdict))
    if not found:
        raise FileNotFoundError(
            f"no cases of {split!r}: run python -m benchmarks.zoo.build --split {split}"
        )
    return found
