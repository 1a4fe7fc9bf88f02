"""The answers of the view inside one HTML file: `frontend/API.md` describes them."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lightning_gradwatch.view import answers
from lightning_gradwatch.view.catalogue import readable
from lightning_gradwatch.view.message import decode
from lightning_gradwatch.view.series import Series
from lightning_gradwatch.view.shown import Shown

#: Bins of a series in a file, over all rows; they are what makes it large.
BUDGET = 400_000

#: Most and fewest bins of the finest map, and most of the coarsest.
MOST, FEWEST, COARSEST = 8192, 64, 512

#: Bits of mantissa: a relative error of 1.2e-4, which nobody sees, for half of the bytes.
BITS = 13

#: Numbers in exact steps, over all steps and rows, and most steps.
EXACT, STEPS = 20_000, 24


def embed(runs: Mapping[str, Shown], logdir: str = "") -> dict[str, Any]:
    """Return everything that the page asks for, for runs by name."""
    runs = {readable(name): run for name, run in runs.items()}
    found = {name: answers.describe(run, name) for name, run in runs.items()}
    return {
        "format": answers.FORMAT,
        "runs": {
            "format": answers.FORMAT,
            "logdir": logdir,
            "runs": [
                {"run": name, "version": about["version"], "writing": False, "path": ""}
                for name, about in found.items()
            ],
            "problems": [],
        },
        "run": found,
        "maps": {
            name: {
                series.name: list(_levels(run, name, series))
                for series in run.series.values()
                if series.present
            }
            for name, run in runs.items()
        },
        "steps": {name: list(_steps(run, name, found[name])) for name, run in runs.items()},
    }


def _levels(run: Shown, name: str, series: Series) -> Iterator[str]:
    """Yield a series over the whole run, finest first, each four times wider than the last."""
    most = min(MOST, max(FEWEST, BUDGET // max(1, len(series.rows))))
    while True:
        message = answers.bins(run, name, series.name, most=most, bits=BITS)
        header, _ = decode(message)
        if header["width"] > 1:
            stats = ("extreme", "min", "mean", "max", "nonfinite")
            message = answers.bins(run, name, series.name, most=most, stats=stats, bits=BITS)
        yield base64.b64encode(gzip.compress(message, 9, mtime=0)).decode()
        columns = header["shape"][1]
        if columns <= COARSEST:
            return
        most = -(-len(series) // (4 * header["width"]))


def _steps(run: Shown, name: str, about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield exact values at the first and last step, and where something happened."""
    if "grad_norm" not in run.series or not len(run.series["grad_norm"]):
        return
    wanted = [about["first_step"], about["last_step"]]
    for finding in about["findings"]:
        wanted += [finding["first_step"], finding["last_step"]]
    wanted += [span[0] for action in about["actions"] for span in action["spans"][:4]]
    wanted += _loudest(run.series["grad_norm"])
    most = min(STEPS, max(4, EXACT // max(1, len(run.layout.layers))))
    for step in sorted(dict.fromkeys(wanted[:most])):
        yield answers.at_step(run, name, int(step))


def _loudest(series: Series) -> list[int]:
    """Return the first steps of the bins that lie farthest above the medians."""
    bins = series.bins(None, None, COARSEST)
    with np.errstate(divide="ignore", invalid="ignore"):
        above = np.nanmax(
            np.where(bins.cells.most > 0, bins.cells.most / series.median, np.nan),
            axis=1,
            initial=0.0,
        )
    return [int(bins.first[i]) for i in np.argsort(-above, kind="stable")[:4]]


def as_script(data: Mapping[str, Any]) -> str:
    """Return JSON that may stand in a script element: nothing in it can end that."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return text.encode("utf-8", "replace").decode("utf-8")  # names on disk need not be text
