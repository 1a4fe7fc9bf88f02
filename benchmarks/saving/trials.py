"""Many trials, in processes of their own."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Iterable

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.saving import store
from benchmarks.saving.trial import Result, attempt
from benchmarks.saving.truth import Key


def _work(key: Key) -> tuple[Key, Result]:
    """An error of the benchmark itself must not cost the other trials."""
    try:
        result = attempt(*key)
    except Exception:
        result = Result(error=f"benchmark: {traceback.format_exc(limit=-2)}")
    else:
        store.write(*key, result)
    return key, result


def carry_out(what: str, keys: Iterable[Key], jobs: int) -> dict[Key, Result]:
    """Return the result of every trial; those that are known already are not repeated.

    Args:
        what: For the progress bar.
        keys: The trials.
        jobs: Processes.
    """
    keys = list(dict.fromkeys(keys))
    results = {key: known for key in keys if (known := store.read(*key)) is not None}
    todo = [key for key in keys if key not in results]
    if not todo:
        return results
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns) as progress, multiprocessing.get_context("spawn").Pool(jobs) as pool:
        bar = progress.add_task(what, total=len(todo))
        for key, result in pool.imap_unordered(_work, todo, chunksize=4):
            results[key] = result
            progress.advance(bar)
    return results
