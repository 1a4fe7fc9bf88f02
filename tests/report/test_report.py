"""The report in words: verdict, text, markdown, dict, files."""

from __future__ import annotations

import io
import json
import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from rich.console import Console

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.finding import CODES, Severity
from lightning_gradwatch.history import History
from lightning_gradwatch.report import Report
from lightning_gradwatch.report.interventions import merge_actions
from lightning_gradwatch.report.verdict import TITLES
from lightning_gradwatch.testing import make_sample
from tests.report.runs import ONES, TRANSFORMER, found, run

NAN, INF = float("nan"), float("inf")


def sick() -> Report:
    """A report with something in every section."""
    history = run(TRANSFORMER, lambda step: ONES, loss=NAN)
    history.append(make_sample(40, dict(zip(TRANSFORMER, ONES, strict=True)), loss=0.25))
    return Report.build(
        history,
        [
            found("spike", ["head"], severity=Severity.INFO),
            found("vanishing", ["embed"], severity=Severity.WARNING, last_step=30, count=9),
            found("exploding", ["blocks.2.attn", "blocks.3.attn"], evidence={"norm": INF}),
        ],
        [ActionRecord("ClipGradNorm", s, "norm above 1", 10.0 + s, 1.0) for s in range(5)],
        epochs=2,
        config={"norm_type": INF, "record": Path("x")},
        environment={"torch": "2.13", "device": "cpu"},
        problems=["segment-0000.steps.npy: torn"],
    )


def test_every_code_has_a_title() -> None:
    assert set(TITLES) == set(CODES)


def test_the_worst_comes_first() -> None:
    report = sick()
    assert [finding.code for finding in report.findings] == ["exploding", "vanishing", "spike"]
    assert report.verdict == "exploding gradients and vanishing gradients"
    assert not report.healthy


def test_notes_do_not_make_a_run_sick() -> None:
    history = run(["a.weight"], lambda _: [1.0])
    notes = [found("spike", ["a"], severity=Severity.INFO)] * 2
    report = Report.build(history, notes)
    assert report.healthy
    assert report.verdict == "healthy, with 2 notes"
    assert report.headline == "GradWatch: healthy, with 2 notes (40 steps)"


def test_nothing_recorded_is_not_called_healthy() -> None:
    report = Report.build(History())
    assert report.verdict == "no optimizer step recorded, so there is nothing to judge"
    assert str(report).startswith(f"GradWatch: {report.verdict}\n0 steps")
    assert report.to_dict()["first_loss"] is None
    assert Report().verdict == report.verdict


@pytest.mark.parametrize(
    ("norm", "words"),
    [
        (0.0, "every gradient is exactly zero"),
        (NAN, "every gradient is NaN or Inf"),
        (float("inf"), "every gradient is NaN or Inf"),
        (None, "no layer has had a gradient"),
    ],
)
def test_a_run_in_which_nothing_can_be_learnt_is_not_called_healthy(
    norm: float | None, words: str
) -> None:
    history = run(["a.weight", "b.weight"], lambda _: [norm, None])
    note = [found("no_gradient", ["b"], severity=Severity.INFO)]
    for notes in ([], note):
        report = Report.build(history, notes)
        assert (report.verdict, report.healthy) == (words, False)
        assert report.headline == f"GradWatch: {words} (40 steps)"
        for text in (str(report), report.to_markdown(), _rich(report)):
            assert words in text
            assert "healthy" not in text
    # What a detector says comes first, and one step of another kind is enough to judge by.
    report = Report.build(history, [found("vanishing", ["a"])])
    assert report.verdict == "vanishing gradients"
    moved = run(["a.weight"], lambda step: [1e-30 if step == 7 else norm])
    assert Report.build(moved).verdict == "healthy"


def _rich(report: Report) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(report)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_no_parameters() -> None:
    history = History()
    history.append(make_sample(0, []))
    report = Report.build(history)
    assert report.verdict == "no trainable parameter to watch"
    assert "| block" not in report.to_markdown()


def test_one_step() -> None:
    report = Report.build(run(["a.weight"], lambda _: [0.5], steps=1, loss=2.0))
    assert str(report).splitlines()[:2] == ["GradWatch: healthy", "1 step · 1 parameter in 1 layer"]
    assert re.search(r"^a +100 +0\.500 +0\.500 +0\.500 +- ", str(report), re.MULTILINE)


def test_all_nan() -> None:
    history = run(["a.weight"], lambda _: [NAN], loss=NAN)
    report = Report.build(history, [found("nonfinite", ["a"], last_step=39, count=30)])
    assert re.search(
        r"^a +100 +nan +nan +nan +nan +×{28} +nonfinite ×30$", str(report), re.MULTILINE
    )
    assert "loss" not in str(report).splitlines()[1]


def test_text_says_what_where_cause_and_what_to_try() -> None:
    text = str(sick())
    assert (
        "ERROR exploding · step 10 · blocks.2.attn, blocks.3.attn\n  Summary of exploding.\n"
        in text
    )
    assert "  cause  Cause of exploding.\n  try    1. First remedy for exploding.\n" in text
    assert "WARNING vanishing · steps 10 to 30, 9 times · embed" in text
    assert "41 steps · 2 epochs · 20 parameters in 20 layers · loss 0.25 → 0.25" in text
    assert "Actions\n  ClipGradNorm 5 times, up to 14 → 1 (steps 0 to 4)" in text
    assert "torch 2.13, device cpu" in text
    assert "Problems\n  segment-0000.steps.npy: torn" in text


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_text_keeps_to_its_width(width: int) -> None:
    long = "backbone.encoder.stages." + "deeply_nested_module_name." * 4
    names = [f"{long}{i}.weight" for i in range(8)]
    report = Report.build(run(names, lambda _: [1e-7] * 8), [found("exploding", [f"{long}3"])])
    lines = report.to_text(width=max(width, 72)).splitlines()
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("block")) :]
    assert max(map(len, table)) <= max(width, 72)
    shown = [line.split()[0] for line in table[2:10]]
    assert len(set(shown)) == 8, "shortened names must tell layers apart"
    assert ("▄" in report.to_text(width=width) or "▅" in report.to_text(width=width)) == (
        width >= 80
    )


def test_columns_stand_under_each_other() -> None:
    lines = str(sick()).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("block "))
    table = [lines[start], *lines[start + 2 : start + 10]]
    for heading in ("params", "median ‖g‖", "min", "max", "update ratio"):
        right = lines[start].index(heading) + len(heading)
        assert all(row[right - 1] != " " and row[right] == " " for row in table)


def test_ascii_text_is_ascii() -> None:
    history = run(["größe.weight"], lambda step: [NAN if step == 3 else 1.0])
    report = Report.build(history, [found("exploding", ["größe"], summary="‖g‖ → ∞ × 3", count=5)])
    text = report.to_text(ascii_only=True)
    assert text.isascii()
    assert "|g| -> inf x 3." in text
    assert "median |g|" in text
    assert "!" in text


def test_markdown_is_a_table_with_equal_cells() -> None:
    text = sick().to_markdown()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    counts = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert len(rows) == 2 + 8
    assert counts == {9}
    assert "**exploding**" in text
    assert "1. First remedy for exploding." in text


def test_markdown_escapes_what_users_name_things() -> None:
    history = run(["a_b|c.<x>.weight"], lambda _: [1.0])
    report = Report.build(history, [found("my.code", ["a_b|c.<x>"], summary="a\n| b *c*")])
    text = report.to_markdown()
    assert r"a\_b\|c.&lt;x&gt;" in text
    assert r"a \| b \*c\*" in text
    assert "<x>" not in text


def test_dict_is_strict_json() -> None:
    data = sick().to_dict()
    again = json.loads(json.dumps(data, allow_nan=False))
    assert again == data
    assert data["findings"][0]["evidence"] == {"norm": "Infinity"}
    assert data["config"] == {"norm_type": "Infinity", "record": "x"}
    assert data["blocks"][0]["update_ratio"] is None
    assert data["blocks"][0]["status"] == "vanishing"
    assert data["actions"][0]["count"] == 5
    assert (data["steps"], data["epochs"], data["last_loss"]) == (41, 2, 0.25)


def test_save_by_suffix(tmp_path: Path) -> None:
    report = sick()
    assert report.save(tmp_path / "r.txt").read_text(encoding="utf-8") == str(report) + "\n"
    assert report.save(str(tmp_path / "r.MD")).read_text(encoding="utf-8") == report.to_markdown()
    saved = report.save(tmp_path / "r.json").read_text(encoding="utf-8")
    assert json.loads(saved) == report.to_dict()


@pytest.mark.parametrize("name", ["report.pdf", "report", "report.md.bak"])
def test_save_names_the_choices(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}.*\.txt, \.md, \.json"):
        sick().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_report_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        sick().steps = 3  # type: ignore[misc]


def test_headline_is_one_line() -> None:
    headline = sick().headline
    assert "\n" not in headline
    assert headline == (
        "GradWatch: exploding gradients and vanishing gradients (ERROR at step 10 · blocks.2.attn "
        "and 1 more): Summary of exploding. Try: First remedy for exploding."
    )


def test_a_finding_without_words() -> None:
    report = Report.build(
        run(["a.weight"], lambda _: [1.0]),
        [found("my.code", ["a"], summary="", cause="", remedies=())],
    )
    assert report.verdict == "my.code"
    assert "ERROR my.code · step 10 · a\n\nblock" in str(report)
    assert "Likely cause" not in report.to_markdown()


def test_actions_are_merged_by_name() -> None:
    records = [
        ActionRecord("DecayLR", 3, "exploding", 0.1, 0.05),
        ActionRecord("ClipGradNorm", 3, "", NAN, NAN),
        ActionRecord("ClipGradNorm", 9, "", INF, 1.0),
        ActionRecord("ClipGradNorm", 4, "", 50.0, 1.0),
        ActionRecord("DecayLR", 8, "exploding", 0.05, 0.025),
        ActionRecord("StopTraining", 9, "NaN in head"),
    ]
    assert [str(entry) for entry in merge_actions(records)] == [
        "DecayLR 2 times, 0.1 → 0.025 (steps 3 to 8)",
        "ClipGradNorm 3 times, up to inf → 1 (steps 3 to 9)",
        "StopTraining once (step 9): NaN in head",
    ]
    assert merge_actions([]) == ()
