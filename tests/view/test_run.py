"""A recording in the view is the recording: torn, resumed, growing, huge, empty, all NaN."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.recording import RecordingWriter, read_recording, schema
from lightning_gradwatch.report.blocks import combine_columns
from lightning_gradwatch.sample import Sample
from lightning_gradwatch.testing import make_flow, make_sample
from lightning_gradwatch.testing.runs import eventful
from lightning_gradwatch.view.answers import at_step, describe
from lightning_gradwatch.view.cells import ABSENT, NO_GRADIENT, plane
from lightning_gradwatch.view.run import RecordedRun


def record(folder: Path, samples: Iterable[Sample], **options: int) -> RecordingWriter:
    writer = RecordingWriter(folder, **options)  # type: ignore[arg-type]
    for sample in samples:
        writer.add(sample)
    return writer


def opened(folder: Path) -> RecordedRun:
    run = RecordedRun(folder)
    run.refresh(None)
    assert run.complete
    return run


def norms(run: RecordedRun) -> np.ndarray:
    """All gradient norms by layer, shape (T, L), as the view would show them without bins."""
    series = run.series["grad_norm"]
    return plane(series.bins(None, None, 10**9).cells, "extreme", series.median, series.log)


def expected(folder: Path) -> np.ndarray:
    """The same from `read_recording`."""
    whole = read_recording(folder)
    present = np.where(whole.has_grad, whole.grad_norm, 0.0).astype(np.float64)
    starts = whole.layout.layer_starts
    values = combine_columns(present, starts, whole.norm_type)
    there = np.logical_or.reduceat(whole.has_grad, starts, axis=1)
    return np.where(there, values, ABSENT)


def same(run: RecordedRun, folder: Path) -> None:
    whole = read_recording(folder)
    assert run.layout == whole.layout
    assert run.series["grad_norm"].steps.tolist() == whole.steps.tolist()
    shown = norms(run)
    shown = np.where(shown == NO_GRADIENT, ABSENT, shown)  # `read_recording` knows one nothing only
    np.testing.assert_allclose(shown, expected(folder), rtol=1e-6)
    assert [f.to_dict() for f in run.findings] == [f.to_dict() for f in whole.findings]
    assert run.epochs == whole.epochs


def test_an_eventful_run_by_two_optimizers(tmp_path: Path):
    writer = record(tmp_path, eventful(), buffer_rows=7)
    writer.finding(Finding("spike", Severity.INFO, ("layer0",), 70, 70, evidence={"x": math.inf}))
    writer.close()
    run = opened(tmp_path)
    same(run, tmp_path)
    whole = read_recording(tmp_path)
    assert run.series["update_ratio"].steps.tolist() == whole.update_steps.tolist()
    profile = run.series["time_profile:layer3"]
    assert len(profile) == len(whole.profiles)
    assert profile.column(0).tolist() == pytest.approx(whole.profiles[0].grad_norm.tolist())
    assert describe(run, "x")["complete"] is True


@pytest.mark.parametrize("buffer_rows", [1, 3])
def test_grows_while_it_is_watched(tmp_path: Path, buffer_rows: int):
    samples = eventful()
    writer = RecordingWriter(tmp_path, buffer_rows=buffer_rows)
    run = RecordedRun(tmp_path)
    versions = set()
    for i, sample in enumerate(samples):
        writer.add(sample)
        if i == 100:
            writer.finding(Finding("spike", Severity.INFO, ("layer0",), 70, 70))
        writer.action(ActionRecord("ClipGradNorm", sample.step, "too long", 2.0, 1.0))
        if i % 13 == 0:
            run.refresh(None)
            versions.add(run.version)
            assert not run.problems or i == 0
    writer.close([Finding("spike", Severity.INFO, ("layer0",), 70, 71, 2)])
    run.refresh(None)
    same(run, tmp_path)
    assert len(versions) > 15
    assert [a.intervention().count for a in run.actions] == [len(samples)]
    assert [entry["reason"] for entry in run.records(33)] == ["too long"]
    assert opened(tmp_path).series["grad_norm"].most.tolist() == pytest.approx(
        run.series["grad_norm"].most.tolist()
    )


def test_a_resumed_run_replaces_what_it_makes_again(tmp_path: Path):
    first = record(tmp_path, (make_sample(t, [1.0, 2.0]) for t in range(10)))
    first.action(ActionRecord("SkipStep", 8, "void", 1.0, 1.0))
    first.action(ActionRecord("SkipStep", 2, "stays", 1.0, 1.0))
    first.close([Finding("spike", Severity.INFO, ("layer0",), 9, 9)])
    run = opened(tmp_path)
    assert len(run.series["grad_norm"]) == 10
    second = RecordingWriter(tmp_path, buffer_rows=1)
    run.refresh(None)  # it has claimed its number, and made no step
    assert len(run.series["grad_norm"]) == 10
    for t in range(5, 8):
        second.add(make_sample(t, [3.0, 4.0]))
        run.refresh(None)
        same(run, tmp_path)
    assert run.series["grad_norm"].steps.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert run.findings == ()
    assert [a.intervention().count for a in run.actions] == [1]
    assert at_step(run, "x", 6)["series"]["grad_norm"]["values"] == [3.0, 4.0]
    second.close()


def test_a_finding_of_a_fit_that_goes_on_has_no_end(tmp_path: Path):
    writer = record(tmp_path, (make_sample(t, [1.0, 2.0]) for t in range(200)))
    writer.finding(Finding("vanishing", Severity.WARNING, ("layer0",), 5, 5))
    writer.finding(Finding("vanishing", Severity.ERROR, ("layer0",), 5, 104, 100))
    writer.finding(Finding("spike", Severity.INFO, ("layer1",), 60, 60))
    writer.flush()
    run = opened(tmp_path)

    def told() -> list[str]:
        run.refresh(None)
        return [finding["where"] for finding in describe(run, "x")["findings"]]

    assert told() == ["since step 5, 100 times by step 104 · layer0", "first at step 60 · layer1"]
    # The fit has its last word; a later one has not been told anything yet.
    writer.close([Finding("vanishing", Severity.ERROR, ("layer0",), 5, 199, 195)])
    assert told() == ["steps 5 to 199, 195 times · layer0"]
    record(tmp_path, [make_sample(200, [1.0, 2.0])]).flush()
    assert told() == ["steps 5 to 199, 195 times · layer0"]


def test_a_layer_set_that_changes(tmp_path: Path):
    writer = record(tmp_path, (make_sample(t, {"a.weight": 1.0}) for t in range(4)))
    run = opened(tmp_path)
    for t in range(4, 8):
        writer.add(make_sample(t, {"b.weight": 2.0, "a.weight": 1.0}))
    writer.action(ActionRecord("SkipStep", 4, "same fit", 1.0, 1.0))
    writer.close()
    run.refresh(None)
    same(run, tmp_path)
    assert run.layout.layers == ("b", "a")
    assert norms(run)[:, 0].tolist() == [-np.inf] * 4 + [2.0] * 4
    assert describe(run, "x")["layers"][0]["name"] == "b"
    assert [s["layers"] for s in run.segments()] == [1, 2]
    assert at_step(run, "x", 2, 1)["parameters"][0]["grad_norm"] == 1.0
    assert [a.intervention().count for a in run.actions] == [1]


def test_two_processes_write_at_once(tmp_path: Path):
    one = RecordingWriter(tmp_path, buffer_rows=1)
    two = RecordingWriter(tmp_path, buffer_rows=1)
    for t in range(6):
        one.add(make_sample(t, [1.0]))
        two.add(make_sample(t, [2.0]))
    one.close()
    two.close()
    run = opened(tmp_path)
    same(run, tmp_path)
    assert norms(run).tolist() == [[2.0]] * 6
    assert run.problems == ()  # they may well have come one after the other
    late = time.time() + 120
    os.utime(tmp_path / schema.STEPS.format(0), (late, late))
    run = opened(tmp_path)
    assert "two runs seem to have written here at the same time" in run.problems[0]
    assert "folder of its own" in run.problems[0]


@pytest.mark.parametrize("steps", [0, 1])
def test_hardly_any_step(tmp_path: Path, steps: int):
    record(tmp_path, (make_sample(t, [2.0, 3.0]) for t in range(steps))).close([])
    run = opened(tmp_path)
    about = describe(run, "x")
    assert about["steps"] == steps
    json.dumps(about, allow_nan=False)
    if steps:
        assert at_step(run, "x", 99)["series"]["grad_norm"]["values"] == [2.0, 3.0]
    else:
        assert about["problems"] == ["no step has been recorded yet"]
        assert about["first_step"] is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_all_nan_or_inf(tmp_path: Path, bad: float):
    flow = make_flow([bad, bad], gain={"layer0": bad}, time_profiles={"rnn": [bad, bad]})
    samples = (
        make_sample(t, [bad, bad], loss=bad, lr=bad, weight_norm=[bad, bad], flow=flow)
        for t in range(40)
    )
    record(tmp_path, samples).close([])
    run = opened(tmp_path)
    shown = norms(run)
    assert (np.isnan(shown) if math.isnan(bad) else shown == np.inf).all()
    about = describe(run, "x")
    json.dumps([about, at_step(run, "x", 3, 0)], allow_nan=False)
    assert about["layers"][0]["median"] is None
    assert about["layers"][0]["nonfinite"] == 40
    assert "grad_norm" in [series["name"] for series in about["series"]]


def test_weights_that_became_nan_are_nan_and_not_unmeasured(tmp_path: Path):
    writer = RecordingWriter(tmp_path, buffer_rows=4)
    run = RecordedRun(tmp_path)
    for t in range(12):
        spoilt = math.nan if t >= 6 else 2.0
        late = 3.0 if t >= 3 else math.nan  # not trained before
        weights = [spoilt, math.nan, late]
        moves = [0.1 * weight for weight in weights]
        writer.add(make_sample(t, [1.0, 1.0, 1.0], weight_norm=weights, update_norm=moves))
        if t == 5:
            run.refresh(None)
    writer.close([])
    for shown in (run, opened(tmp_path)):
        shown.refresh(None)
        for name in ("weight_norm", "update_ratio"):
            series = shown.series[name]
            table = plane(series.bins(None, None, 100).cells, "mean", series.median, series.log)
            assert np.isnan(table[6:, 0]).all()
            assert np.isfinite(table[:6, 0]).all()
            assert (table[:, 1] == ABSENT).all()
            assert (table[:3, 2] == ABSENT).all()
            assert np.isfinite(table[3:, 2]).all()
    found = at_step(run, "x", 9)["series"]["weight_norm"]["values"]
    assert found == ["NaN", None, 3.0]
    assert describe(run, "x")["layers"][0]["weight_norm"] == 2.0  # the last one known


def test_no_gradient_at_all_and_no_parameter(tmp_path: Path):
    record(tmp_path / "a", (make_sample(t, [None, None]) for t in range(5))).close([])
    run = opened(tmp_path / "a")
    assert (norms(run) == NO_GRADIENT).all()
    assert describe(run, "x")["layers"][0]["nonfinite"] == 0
    assert "grad_norm" not in [series["name"] for series in describe(run, "x")["series"]]
    record(tmp_path / "b", (make_sample(t, []) for t in range(5))).close([])
    about = describe(opened(tmp_path / "b"), "x")
    assert about["steps"] == 5
    assert about["verdict"] == "no trainable parameter to watch"


def test_nothing_but_zeros_is_shown_and_not_called_healthy(tmp_path: Path):
    record(tmp_path, (make_sample(t, [0.0, 0.0]) for t in range(5))).close([])
    about = describe(opened(tmp_path), "x")
    assert (about["verdict"], about["healthy"]) == ("every gradient is exactly zero", False)
    assert about["series"][0]["name"] == "grad_norm"
    assert (about["series"][0]["low"], about["series"][0]["high"]) == (None, 0.0)
    assert [layer["max"] for layer in about["layers"]] == [0.0, 0.0]


def test_ten_thousand_layers(tmp_path: Path):
    rng = np.random.default_rng(0)
    names = {f"block.{i}.weight": 1.0 for i in range(10_000)}
    layout = make_sample(0, names).layout
    samples = (make_sample(t, dict(zip(names, rng.uniform(1, 2, 10_000).tolist(), strict=True)),
                           layout=layout) for t in range(40))  # fmt: skip
    record(tmp_path, samples).close([])
    run = opened(tmp_path)
    same(run, tmp_path)
    assert len(describe(run, "x")["layers"]) == 10_000
    assert run.nbytes < 100 * 2**20


def test_a_newer_version(tmp_path: Path):
    record(tmp_path, [make_sample(0, [1.0])]).close([])
    path = tmp_path / schema.META.format(0)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    run = opened(tmp_path)
    assert "version 99" in run.problems[0]
    assert "pip install --upgrade" in run.problems[0]
    assert describe(run, "x")["steps"] == 0
    assert describe(run, "x")["verdict"] == "this recording cannot be read"


def test_an_older_segment_is_shown_beside_a_newer_one(tmp_path: Path):
    record(tmp_path, [make_sample(0, [1.0])]).close([])
    record(tmp_path, [make_sample(1, [1.0])]).close([])
    path = tmp_path / schema.META.format(1)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    run = opened(tmp_path)
    assert len(run.series["grad_norm"]) == 1
    assert "version 99" in run.problems[0]


def test_every_file_torn_anywhere(tmp_path: Path):
    whole = tmp_path / "whole"
    flow = make_flow([1.0, 2.0], time_profiles={"rnn": [0.5, 1.0]})
    writer = record(
        whole, (make_sample(t, [1.0, 2.0], weight_norm=[1.0, 1.0], flow=flow) for t in range(6)),
        buffer_rows=2,
    )  # fmt: skip
    writer.action(ActionRecord("ClipGradNorm", 3, "längst", 2.0, 1.0))
    writer.close([Finding("spike", Severity.INFO, ("layer0",), 1, 1)])
    for path in sorted(whole.iterdir()):
        data = path.read_bytes()
        for cut in {*range(0, len(data), 71), *range(max(0, len(data) - 20), len(data))}:
            torn = tmp_path / "torn"
            shutil.rmtree(torn, ignore_errors=True)
            shutil.copytree(whole, torn)
            (torn / path.name).write_bytes(data[:cut])
            run = opened(torn)
            about = describe(run, "x")
            json.dumps(about, allow_nan=False)
            assert about["steps"] <= 6
            if ".json" not in path.suffixes:
                assert run.layout.layers == ("layer0", "layer1")


def test_a_file_that_is_cut_off_or_replaced_while_it_is_watched(tmp_path: Path):
    record(tmp_path, (make_sample(t, [1.0]) for t in range(10)), buffer_rows=2).close([])
    run = opened(tmp_path)
    path = tmp_path / schema.STEPS.format(0)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    run.refresh(None)
    same(run, tmp_path)
    assert 0 < len(run.series["grad_norm"]) < 10
    shutil.rmtree(tmp_path)
    run.refresh(None)
    assert "no recording" in run.problems[0]
    assert describe(run, "x")["steps"] == 0


def test_an_unfinished_end_is_no_problem_while_the_run_writes(tmp_path: Path):
    record(tmp_path, (make_sample(t, [1.0]) for t in range(4)), buffer_rows=2).close([])
    path = tmp_path / schema.STEPS.format(0)
    path.write_bytes(path.read_bytes()[:-3])
    run = opened(tmp_path)
    assert run.writing
    assert run.problems == ()
    long_ago = time.time() - 3600
    for file in tmp_path.iterdir():
        os.utime(file, (long_ago, long_ago))
    # The run that has been watched all along says the same as one that is opened now.
    run.refresh(None)
    for shown in (run, opened(tmp_path)):
        assert not shown.writing
        assert "unfinished block" in shown.problems[0]


def test_a_large_recording_is_answered_before_it_has_been_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("lightning_gradwatch.view.tails.CHUNK", 20_000)
    record(tmp_path, (make_sample(t, [1.0] * 30) for t in range(3000))).close([])
    run = RecordedRun(tmp_path)
    seen = []
    while not run.complete:
        run.refresh(0.0)
        seen.append(len(run.series["grad_norm"]))
        describe(run, "x")
        assert len(seen) < 100
    assert seen == sorted(seen)
    assert seen[-1] == 3000
    assert 0 < seen[0] < 3000


def test_narrow_bins_are_read_from_disk(tmp_path: Path):
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(size=(500, 3))).astype(np.float32)
    values[321, 1] = np.nan
    record(tmp_path, (make_sample(t, v.tolist()) for t, v in enumerate(values))).close([])
    series = opened(tmp_path).series["grad_norm"]
    for start, stop, most, width in ((0, 499, 500, 1), (100, 133, 16, 4), (3, 490, 70, 8)):
        bins = series.bins(start, stop, most)
        assert bins.cells.width == width
        assert bins.first[0] == start // width * width
        assert bins.last[-1] == min(499, stop // width * width + width - 1)
        part = values[bins.first[0] : bins.last[-1] + 1]
        finite = np.where(np.isnan(part), 0, part)
        assert bins.cells.most.max() == finite.max()
        assert bins.cells.with_counts().nan.sum() == np.isnan(part).sum()
        assert bins.columns.sum() == len(part)


def test_modules_that_come_and_go(tmp_path: Path):
    writer = RecordingWriter(tmp_path)
    writer.add(make_sample(0, [1.0], flow=make_flow({"a": 1.0, "b": 2.0})))
    run = opened(tmp_path)
    writer.add(make_sample(1, [1.0], flow=make_flow({"c": 3.0, "a": math.nan})))
    writer.add(make_sample(2, [1.0], flow=make_flow({"c": 3.0, "a": 5.0}, gain={"a": 0.5})))
    writer.close([])
    for shown in (opened(tmp_path), run):
        shown.refresh(None)
        flow = shown.series["flow"]
        rows = [row.name for row in flow.rows]
        assert set(rows) == {"a", "b", "c"}
        table = {name: [float(flow.column(t)[i]) for t in range(3)] for i, name in enumerate(rows)}
        assert table["b"] == [2.0, -np.inf, -np.inf]
        assert table["a"][0] == 1.0
        assert math.isnan(table["a"][1])
        assert shown.series["gain"].present


def test_sequences_of_several_lengths_end_together(tmp_path: Path):
    writer = RecordingWriter(tmp_path)
    for t, length in enumerate((3, 5, 1)):
        flow = make_flow(time_profiles={"rnn": list(range(length))})
        writer.add(make_sample(t, [1.0], flow=flow))
    writer.close([])
    series = opened(tmp_path).series["time_profile:rnn"]
    assert [row.name for row in series.rows] == ["t=0", "t=1", "t=2", "t=3", "t=4"]
    assert series.column(0).tolist() == [-np.inf, -np.inf, 0, 1, 2]
    assert series.column(2).tolist() == [-np.inf] * 4 + [0]
