"""What goes into a recording comes out of it, over segments, sessions and layouts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.history import History
from lightning_gradwatch.layers import Layout
from lightning_gradwatch.recording import RecordingWriter, read_recording
from lightning_gradwatch.report import Report
from lightning_gradwatch.sample import Flow, Sample, TimeProfile
from lightning_gradwatch.testing import make_sample

NAN, INF = float("nan"), float("inf")


def record(folder: Path, samples: list[Sample], **options: object) -> None:
    """Write a session of its own."""
    writer = RecordingWriter(folder, **options)  # type: ignore[arg-type]
    for sample in samples:
        writer.add(sample)
    writer.close()


def finding(code: str = "spike", step: int = 0, **fields: object) -> Finding:
    defaults = {"layers": ("a",), "first_step": step, "last_step": step}
    return Finding(code, Severity.WARNING, **{**defaults, **fields})  # type: ignore[arg-type]


def test_non_finite_values_come_back_as_they_were(tmp_path: Path) -> None:
    norms = {"a.weight": NAN, "b.weight": INF, "c.weight": None, "d.weight": 2.0}
    record(tmp_path, [make_sample(0, norms, loss=NAN, lr=INF)])
    recording = read_recording(tmp_path)
    np.testing.assert_array_equal(recording.grad_norm, [[NAN, INF, NAN, 2.0]])
    np.testing.assert_array_equal(recording.has_grad, [[True, True, False, True]])
    assert math.isnan(recording.loss[0])
    assert recording.lr[0] == INF
    assert recording.problems == ()


def test_a_finite_norm_never_turns_into_inf(tmp_path: Path) -> None:
    record(tmp_path, [make_sample(0, [1e200, INF, 1e-200, 1.0])])
    largest = np.finfo(np.float32).max
    assert read_recording(tmp_path).grad_norm[0].tolist() == [largest, INF, 0.0, 1.0]


def test_every_field_of_a_step(tmp_path: Path) -> None:
    sample = make_sample(
        7, {"a.weight": 3.0, "a.bias": 4.0}, loss=0.5, lr=0.1, clipped_norm=1.0, optimizer=1,
        batch_idx=3, epoch=2, accumulated=0.5, amp_overflow=True,
    )  # fmt: skip
    record(tmp_path, [sample])
    recording = read_recording(tmp_path)
    (row,) = recording.rows
    assert {name: row[name].item() for name in row.dtype.names if not row[name].shape} == {
        "step": 7, "optimizer": 1, "epoch": 2, "batch_idx": 3, "loss": 0.5, "lr": 0.1,
        "global_norm": 5.0, "clipped_norm": 1.0, "accumulated": 0.5, "amp_overflow": True,
    }  # fmt: skip
    assert recording.layout == sample.layout
    assert recording.epochs == 3
    assert (recording.layer_min[0], recording.layer_max[0]) == (5.0, 5.0)


def test_norm_type_is_kept(tmp_path: Path) -> None:
    record(tmp_path, [make_sample(0, {"a.weight": 3.0, "a.bias": 4.0}, norm_type=INF)])
    recording = read_recording(tmp_path)
    assert recording.norm_type == INF
    assert recording.layer_max.tolist() == [4.0]


def test_updates_and_profiles(tmp_path: Path) -> None:
    profile = TimeProfile("rnn", np.array([1e-9, NAN, 0.5]))
    record(
        tmp_path,
        [
            make_sample(0, [1.0, 2.0]),
            make_sample(
                1, [1.0, 2.0], weight_norm=[2.0, 0.0], update_norm=[1.0, 3.0], descent=[0.5, NAN],
                flow=Flow((profile,)),
            ),
        ],
    )  # fmt: skip
    recording = read_recording(tmp_path)
    assert recording.update_steps.tolist() == [1]
    assert recording.update_ratio.tolist() == [[0.5, INF]]
    np.testing.assert_array_equal(recording.updates["descent"], [[0.5, NAN]])
    (read,) = recording.profiles
    assert (read.step, read.module) == (1, "rnn")
    np.testing.assert_array_equal(read.grad_norm, profile.grad_norm)


def test_a_model_without_parameters(tmp_path: Path) -> None:
    record(tmp_path, [make_sample(step, []) for step in range(3)])
    recording = read_recording(tmp_path)
    assert recording.steps.tolist() == [0, 1, 2]
    assert recording.grad_norm.shape == (3, 0)
    assert Report.from_recording(recording).steps == 3


def test_config_and_environment_are_strict_json(tmp_path: Path) -> None:
    config = {"norm_type": INF, "path": Path("x"), "odd": {1}, "surrogate": "\ud800"}
    record(tmp_path, [make_sample(0)], config=config, environment={"torch": "2"})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / "segment-0000.json").read_text(encoding="utf-8")
    about = json.loads(text, parse_constant=refuse)
    assert about["config"] == {
        "norm_type": "Infinity", "path": "x", "odd": "{1}", "surrogate": "?",
    }  # fmt: skip
    assert read_recording(tmp_path).environment == {"torch": "2"}


def test_findings_and_actions_with_non_finite_numbers(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path)
    found = finding(evidence={"ratio": INF, "norm": NAN})
    writer.finding(found)
    writer.action(ActionRecord("ClipGradNorm", 3, "too long", INF, 1.0))
    writer.action(ActionRecord("SkipStep", 4, "nothing before"))
    writer.add(make_sample(0))
    writer.close()
    recording = read_recording(tmp_path)
    (read,) = recording.findings
    assert read.evidence["ratio"] == INF
    assert math.isnan(read.evidence["norm"])
    assert replace(read, evidence={}) == replace(found, evidence={})
    assert recording.actions[0] == ActionRecord("ClipGradNorm", 3, "too long", INF, 1.0)
    assert math.isnan(recording.actions[1].before)


def test_the_diagnosis_is_the_last_word_of_a_fit(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path)
    writer.add(make_sample(0))
    writer.finding(finding("vanishing", 3))
    merged = finding("vanishing", 3, last_step=90, count=50)
    writer.close([merged])
    assert read_recording(tmp_path).findings == (merged,)


def test_resumed_rows_come_from_the_later_segment(tmp_path: Path) -> None:
    record(tmp_path, [make_sample(s, [1.0]) for s in range(10)])
    record(tmp_path, [make_sample(s, [2.0]) for s in range(6, 12)])
    record(tmp_path, [make_sample(s, [3.0]) for s in range(11, 13)])
    recording = read_recording(tmp_path)
    assert recording.steps.tolist() == list(range(13))
    assert recording.grad_norm[:, 0].tolist() == [1.0] * 6 + [2.0] * 5 + [3.0] * 2


def test_resuming_concerns_each_optimizer_alone(tmp_path: Path) -> None:
    record(tmp_path, [make_sample(s, [1.0], optimizer=s % 2) for s in range(6)])
    record(tmp_path, [make_sample(s, [2.0], optimizer=0) for s in (4, 6)])
    recording = read_recording(tmp_path)
    pairs = list(zip(recording.steps.tolist(), recording.optimizer.tolist(), strict=True))
    assert pairs == [(0, 0), (1, 1), (2, 0), (3, 1), (5, 1), (4, 0), (6, 0)]


def test_what_happened_after_the_checkpoint_did_not_happen(tmp_path: Path) -> None:
    for session, first in enumerate((0, 5)):
        writer = RecordingWriter(tmp_path)
        for step in range(first, 8):
            writer.add(make_sample(step))
            writer.action(ActionRecord(f"session{session}", step, ""))
        writer.finding(finding("spike", 2 if session == 0 else 6))
        writer.finding(finding("exploding", 7))
        writer.close()
    recording = read_recording(tmp_path)
    assert [(a.action, a.step) for a in recording.actions] == [
        *(("session0", s) for s in range(5)), *(("session1", s) for s in range(5, 8)),
    ]  # fmt: skip
    assert [(f.code, f.first_step) for f in recording.findings] == [
        ("spike", 2), ("spike", 6), ("exploding", 7),
    ]  # fmt: skip


def test_a_new_layout_begins_a_segment_and_joins_by_name(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path)
    writer.add(make_sample(0, {"a.weight": 1.0, "b.weight": 2.0}))
    # Seen at the step whose gradients have the new layout, before that step is complete.
    writer.finding(finding("spike", 1))
    writer.add(make_sample(1, {"c.weight": 30.0, "b.weight": 20.0}))
    writer.close()
    assert len(list(tmp_path.glob("segment-*.json"))) == 2
    recording = read_recording(tmp_path)
    assert recording.parameters == ("c.weight", "b.weight", "a.weight")
    np.testing.assert_array_equal(recording.grad_norm, [[NAN, 2.0, 1.0], [30.0, 20.0, NAN]])
    np.testing.assert_array_equal(recording.has_grad, [[0, 1, 1], [1, 1, 0]])
    assert [f.code for f in recording.findings] == ["spike"]


def test_a_parameter_that_moves_to_another_layer_is_one_column(tmp_path: Path) -> None:
    first = Layout(("emb.weight",), ("emb",), (0,), (4,), (2,), ("Embedding",))
    tied = Layout(("emb.weight", "x.weight"), ("head",), (0, 0), (4, 1), (2, 2), ("Linear",))
    record(tmp_path, [make_sample(0, {"emb.weight": 1.0}, layout=first)])
    record(tmp_path, [make_sample(1, {"emb.weight": 2.0, "x.weight": 1.0}, layout=tied)])
    recording = read_recording(tmp_path)
    assert recording.layers == ("head",)
    np.testing.assert_array_equal(recording.grad_norm, [[1.0, NAN], [2.0, 1.0]])


def test_the_report_from_disk_is_that_of_the_live_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    history, writer = History(), RecordingWriter(tmp_path, config={"a": 1})
    names = [f"blocks.{i}.{part}" for i in range(8) for part in ("weight", "bias")]
    for step in range(60):
        norms = np.float32(10 ** rng.normal(size=len(names))).astype(float)
        norms[3] = NAN if step == 30 else norms[3]
        sample = make_sample(
            step, dict(zip(names, norms.tolist(), strict=True)), loss=1.0 / (step + 1),
            **({"weight_norm": np.full(len(names), 2.0)} if step % 10 == 0 else {}),
        )  # fmt: skip
        history.append(sample)
        writer.add(sample)
    found = (finding("nonfinite", 30, layers=("blocks.1",)),)
    acted = (ActionRecord("SkipStep", 30, "NaN"),)
    writer.finding(found[0])
    writer.action(acted[0])
    writer.close(found)
    live = Report.build(history, found, acted, epochs=1, config={"a": 1})
    assert str(Report.from_recording(read_recording(tmp_path))) == str(live)


@pytest.mark.parametrize("path", ["", "gradwatch"])
def test_log_directory_or_folder(tmp_path: Path, path: str) -> None:
    record(tmp_path / "gradwatch", [make_sample(0)])
    assert read_recording(tmp_path / path).steps.tolist() == [0]
