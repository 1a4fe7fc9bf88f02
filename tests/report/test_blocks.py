"""Numbers, trend and state of each block."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from lightning_gradwatch.finding import Severity
from lightning_gradwatch.history import History
from lightning_gradwatch.layers import Layout
from lightning_gradwatch.report import Block, Report
from lightning_gradwatch.report.sparkline import CELLS, cells, scale, trend
from lightning_gradwatch.testing import make_sample
from tests.report.runs import ONES, TRANSFORMER, found, run

NAN, INF = float("nan"), float("inf")


def blocks_of(report: Report) -> dict[str, Block]:
    return {block.name: block for block in report.blocks}


def test_non_finite_steps_do_not_touch_the_other_numbers() -> None:
    values = [1.0, NAN, 3.0, INF, 2.0]
    report = Report.build(run(["a.weight"], lambda step: [values[step]], steps=5))
    (block,) = report.blocks
    assert (block.median, block.minimum, block.maximum) == (2.0, 1.0, 3.0)
    assert block.nonfinite == 2
    assert block.trend == (0.0, INF, pytest.approx(math.log10(3.0)), INF, math.log10(2.0))


def test_a_gradient_that_is_always_nan_is_not_a_missing_one() -> None:
    history = run(["a.weight", "b.weight"], lambda _: [NAN, None])
    sick, missing = Report.build(history, [found("nonfinite", ["a"])]).blocks
    assert all(math.isnan(v) for b in (sick, missing) for v in (b.median, b.minimum, b.maximum))
    assert set(sick.trend) == {INF}
    assert sick.status == "nonfinite"
    assert all(math.isnan(v) for v in missing.trend)
    assert missing.status == "no gradient"


def test_numbers_are_those_of_single_layers() -> None:
    names = [f"blocks.{i}.{p}.weight" for i in range(6) for p in "ab"]
    history = run(names, lambda step: [3.0 + step, 4.0 + step] * 6, steps=3)
    block = Report.build(history).blocks[0]
    assert block.layers == ("blocks.0.a", "blocks.0.b")
    assert (block.minimum, block.median, block.maximum) == (3.0, 4.5, 6.0)
    assert block.trend[0] == pytest.approx(math.log10(5.0))
    assert (block.parameters, block.elements) == (2, 200)


def test_interleaved_layers_of_a_block() -> None:
    """Execution order may leave a block and come back to it."""
    names = [
        "x.0.a.weight",
        "x.1.a.weight",
        "x.0.b.weight",
        *(f"x.{i}.a.weight" for i in range(2, 7)),
    ]
    history = run(names, lambda _: [3.0, 7.0, 4.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    blocks = blocks_of(Report.build(history))
    assert blocks["x.0"].trend[0] == pytest.approx(math.log10(5.0))
    assert (blocks["x.0"].minimum, blocks["x.0"].maximum) == (3.0, 4.0)
    assert blocks["x.1"].maximum == 7.0


def test_extremes_are_exact_where_rows_have_been_thinned() -> None:
    history = History(max_rows=64)
    for step in range(2000):
        norm = 1e5 if step == 137 else 1e-5 if step == 138 else 1.0 + 0.001 * (step % 7)
        history.append(make_sample(step, {"a.weight": norm}))
    report = Report.build(history)
    assert (report.blocks[0].minimum, report.blocks[0].maximum) == (1e-5, 1e5)
    assert (report.steps, report.last_step) == (2000, 1999)


def test_the_trend_covers_a_run_that_has_been_thinned_many_times() -> None:
    history = History(max_rows=256)
    for step in range(3000):
        for optimizer, norms in enumerate(([10.0 ** (step / 1000), None], [None, 1.0])):
            sample = make_sample(step, norms, optimizer=optimizer)
            history.append(sample)
    first, second = Report.build(history).blocks
    assert len(first.trend) == CELLS
    for name, trend_ in (("loud", first.trend), ("quiet", second.trend)):
        assert sum(math.isnan(value) for value in trend_) <= CELLS // 4, name
    seen = [value for value in first.trend if not math.isnan(value)]
    assert seen == sorted(seen)
    assert seen[0] < 0.3


def test_norm_types() -> None:
    for norm_type, total in ((1.0, 7.0), (2.0, 5.0), (INF, 4.0)):
        history = History(norm_type)
        history.append(make_sample(0, {"a.weight": 3.0, "a.bias": 4.0}, norm_type=norm_type))
        (block,) = Report.build(history).blocks
        assert block.median == block.maximum == pytest.approx(total)
        assert block.trend == (pytest.approx(math.log10(total)),)


def test_update_ratio_is_that_of_matrices() -> None:
    history = History()
    history.append(
        make_sample(0, {"a.weight": 1.0, "a.bias": 1.0, "b.bias": 1.0},
                    weight_norm=[2.0, 0.0, 4.0], update_norm=[0.1, 1.0, 1.0])
    )  # fmt: skip
    history.append(make_sample(1, {"a.weight": 1.0, "a.bias": 1.0, "b.bias": 1.0}))
    a, b = Report.build(history).blocks
    assert a.update_ratio == pytest.approx(0.05)
    assert b.update_ratio == pytest.approx(0.25)


def test_several_optimizers_share_steps() -> None:
    history = History()
    for step in range(10):
        history.append(make_sample(step, {"d.weight": 1.0, "g.weight": None}, optimizer=0))
        history.append(make_sample(step, {"d.weight": None, "g.weight": 5.0}, optimizer=1))
    blocks = blocks_of(Report.build(history))
    assert set(blocks["d"].trend) == {0.0}
    assert blocks["g"].median == 5.0


def test_status_comes_from_the_findings_alone() -> None:
    history = run(TRANSFORMER, lambda step: [1e6] * len(TRANSFORMER))
    assert {block.status for block in Report.build(history).blocks} == {"ok"}
    findings = [
        found("exploding", ["blocks.1.mlp.0"], count=3, last_step=20),
        found("vanishing", ["blocks.1.attn", "embed"], severity=Severity.WARNING),
        found("spike", ["head"], severity=Severity.INFO, count=2),
        found("spike", severity=Severity.INFO),
    ]
    report = Report.build(history, findings)
    assert {name: block.status for name, block in blocks_of(report).items()} == {
        "embed": "vanishing", "blocks.0": "ok", "blocks.1": "exploding ×3", "blocks.2": "ok",
        "blocks.3": "ok", "blocks.4": "ok", "blocks.5": "ok", "head": "spike ×2",
    }  # fmt: skip
    assert [b.name for b in report.blocks if b.sick] == ["embed", "blocks.1"]


def test_a_finding_on_the_whole_model_concerns_every_block() -> None:
    report = Report.build(run(TRANSFORMER, lambda _: ONES), [found("oscillating")])
    assert {block.status for block in report.blocks} == {"oscillating"}


def test_marks_fall_on_the_cells_that_show_the_finding() -> None:
    history = run(["a.weight"], lambda step: [1e4 if step in (5, 20) else 1.0], steps=28)
    finding = found("exploding", ["a"], first_step=5, last_step=20, count=2)
    (block,) = Report.build(history, [finding]).blocks
    assert [i for i, mark in enumerate(block.marks) if mark] == [5, 20]
    (block,) = Report.build(
        history, [found("vanishing", ["a"], first_step=26, last_step=99)]
    ).blocks
    assert [i for i, mark in enumerate(block.marks) if mark] == [26, 27]


@pytest.mark.parametrize("steps", [1, 2, 27, 28, 29, 100, 1001])
def test_a_spike_is_in_one_cell_whatever_the_length(steps: int) -> None:
    at = steps * 2 // 3
    history = run(["a.weight"], lambda step: [1e3 if step == at else 1.0], steps=steps)
    (block,) = Report.build(history).blocks
    assert len(block.trend) == min(steps, CELLS)
    assert sum(value == 3.0 for value in block.trend) == 1


def test_trend_of_nothing_and_of_zeros() -> None:
    assert trend(np.zeros(0), np.zeros(0, np.intp)) == ()
    history = run(["a.weight"], lambda _: [0.0], steps=3)
    (block,) = Report.build(history).blocks
    assert block.trend == (-INF, -INF, -INF)
    assert (block.median, block.minimum) == (0.0, 0.0)


def test_scale_ignores_what_is_not_finite() -> None:
    assert scale([(NAN, INF, -INF)]) == (-1.0, 1.0)
    assert scale([(-30.0, 0.0, 0.0, 0.0, 1.0, INF)]) == (-6.0, 1.0)
    assert cells([-30.0, 99.0], -6.0, 1.0) == "▁█"


def test_ten_thousand_layers_in_reasonable_time() -> None:
    layout = Layout.of({f"layers.{i}.weight": 10 for i in range(10_000)})
    history = History()
    norms = np.geomspace(1e-6, 1.0, 10_000)
    sample = make_sample(
        0, dict(zip(layout.parameters, norms.tolist(), strict=True)), layout=layout
    )
    for _ in range(5):
        history.append(sample)
    start = time.perf_counter()
    report = Report.build(history, [found("vanishing", layout.layers[:7000])])
    text = str(report)
    assert time.perf_counter() - start < 30  # about 2 s; a quadratic step would take minutes
    assert len(report.blocks) == 10_000
    assert len(text.splitlines()) < 60
    assert "9,970 of 10,000 blocks left out, 6,975 of them with a finding" in text
