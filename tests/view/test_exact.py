"""Exact values stay readable when memory holds only bins: they are read from the files again."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from lightning_gradwatch.recording import RecordingWriter, schema
from lightning_gradwatch.testing import make_flow, make_sample
from lightning_gradwatch.view import lines, shown
from lightning_gradwatch.view.answers import at_step, describe
from lightning_gradwatch.view.run import RecordedRun
from lightning_gradwatch.view.series import Series
from lightning_gradwatch.view.tails import ReplacedError

STEPS = 700


def sample(t: int):
    rng = np.random.default_rng(t)
    norms = rng.uniform(1, 2, 3).round(4).tolist()
    names = ("a", "b", "c") if t < 300 else ("c", "a", "d")  # modules may change in between
    flow = make_flow(
        dict(zip(names, [*norms[:2], math.nan if t == 200 else norms[2]], strict=True)),
        gain={"a": norms[0]},
        time_profiles={"rnn": norms[: 1 + t % 3]},
    )
    return make_sample(t, norms, weight_norm=norms, update_norm=[0.1] * 3, flow=flow)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recording whose sampled series have little memory; the second segment redoes some steps."""
    small = 4000
    monkeypatch.setattr(lines, "MAX_BYTES", small)
    monkeypatch.setattr(lines, "READ_AT_ONCE", 1000)

    class Small(Series):
        def __init__(self, *args, **options):
            super().__init__(*args, **{"max_bytes": small, **options})

    monkeypatch.setattr(shown, "Series", Small)
    for first, last in ((0, 450), (400, STEPS)):
        writer = RecordingWriter(tmp_path, buffer_rows=16)
        for t in range(first, last):
            writer.add(sample(t))
        writer.close([])
    return tmp_path


def value(found, series: str, run: RecordedRun, row: str):
    names = [one.name for one in run.series[series].rows]
    return found["series"][series]["values"][names.index(row)]


def test_every_sampled_series_is_exact_at_a_pinned_step(folder: Path):
    run = RecordedRun(folder)
    run.refresh(None)
    for name in ("update_ratio", "weight_norm", "flow", "gain", "time_profile:rnn"):
        assert run.series[name]._pyramid.base > 1, name  # memory holds bins only
    for t in (0, 1, 199, 200, 299, 300, 399, 400, 449, 450, 698, 699):
        found = at_step(run, "x", t)
        made = sample(t)
        assert value(found, "weight_norm", run, "layer1") == np.float32(made.update.weight_norm[1])
        ratio = 0.1 / made.update.weight_norm[1]
        assert value(found, "update_ratio", run, "layer1") == pytest.approx(ratio, rel=1e-6)
        flow = made.flow.modules
        for name, norm in zip(flow.names, flow.out_grad_norm.tolist(), strict=True):
            shown = value(found, "flow", run, name)
            assert shown == ("NaN" if math.isnan(norm) else pytest.approx(norm, rel=1e-4))
        assert value(found, "flow", run, "d" if t < 300 else "b") is None
        profile = found["series"]["time_profile:rnn"]["values"]
        expected = made.flow.time_profiles[0].grad_norm.tolist()
        assert profile[-len(expected) :] == pytest.approx(expected, rel=1e-4)
        assert all(found["series"][name]["step"] == t for name in found["series"])


def test_a_narrow_window_has_every_sample(folder: Path):
    run = RecordedRun(folder)
    run.refresh(None)
    for name in ("weight_norm", "flow", "time_profile:rnn"):
        found = run.series[name].bins(395, 404, 100)
        assert (found.cells.width, found.first.tolist()) == (1, list(range(395, 405)))
    # Text takes its time: a wide window of it is answered from memory, in wider bins.
    assert run.series["flow"].bins(None, None, 1000).cells.width > 1


def test_it_goes_on_exact_while_the_run_grows(folder: Path):
    run = RecordedRun(folder)
    run.refresh(None)
    writer = RecordingWriter(folder, buffer_rows=1)
    for t in range(STEPS, STEPS + 40):
        writer.add(sample(t))
        run.refresh(None)
        found = at_step(run, "x", t)
        assert value(found, "weight_norm", run, "layer2") == np.float32(
            sample(t).update.weight_norm[2]
        )
        assert found["series"]["flow"]["step"] == t
    writer.close([])
    assert describe(run, "x")["problems"] == []


def test_a_line_that_is_gone_is_no_wrong_number(folder: Path):
    run = RecordedRun(folder)
    run.refresh(None)
    path = folder / schema.FLOW.format(0)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ReplacedError):
        at_step(run, "x", 300)
    run.refresh(None)
    assert at_step(run, "x", 300)["series"]["weight_norm"]["step"] == 300
