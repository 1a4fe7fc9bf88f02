"""Which scalars loggers get, with which values, and what a failing logger does."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.errors import GradWatchWarning
from lightning_gradwatch.finding import Severity
from lightning_gradwatch.history import History
from lightning_gradwatch.report import Report
from lightning_gradwatch.reporters import LoggersReporter, RunInfo
from lightning_gradwatch.reporters.loggers import layout
from lightning_gradwatch.sample import Sample
from lightning_gradwatch.testing import make_sample
from tests.report.runs import found
from tests.reporters.fakes import BrokenLogger, PlainLogger, TextLogger

NAN, INF = float("nan"), float("inf")


def started(*loggers: object) -> LoggersReporter:
    reporter = LoggersReporter()
    reporter.start(RunInfo(loggers=loggers))
    return reporter


def feed(reporter: LoggersReporter, *samples: Sample) -> None:
    """Give all samples, log the last."""
    for sample in samples:
        reporter.sample(sample)
    reporter.log(samples[-1])


def test_values_of_a_step() -> None:
    logger = PlainLogger()
    norms = {"a.weight": 1e-4, "b.weight": 1e-2, "c.weight": 1.0}
    sample = make_sample(
        9, norms, clipped_norm=0.1, weight_norm=[1.0, 1.0, 1.0], update_norm=[0.1, 0.01, 1e-3]
    )
    feed(started(logger), sample)
    ((step, metrics),) = logger.rows
    assert step == 9
    low, _, high = np.log10(np.percentile([1e-4, 1e-2, 1.0], [5, 50, 95]))
    assert metrics == pytest.approx(
        {
            "gradwatch/log10_norm": math.log10(sample.global_norm),
            "gradwatch/log10_norm_highest": math.log10(sample.global_norm),
            "gradwatch/log10_norm_used": -1.0,
            "gradwatch/log10_layer_norm_low": low,
            "gradwatch/log10_layer_norm_median": -2.0,
            "gradwatch/log10_layer_norm_high": high,
            "gradwatch/log10_first_to_last": -4.0,
            "gradwatch/log10_update_ratio": -2.0,
            "gradwatch/clipped_fraction": 1.0,
            "gradwatch/nonfinite_steps": 0.0,
            "gradwatch/findings": 0.0,
            "gradwatch/interventions": 0.0,
        }
    )


def test_a_spike_between_two_rows_is_not_lost() -> None:
    logger = PlainLogger()
    reporter = started(logger)
    feed(reporter, *(make_sample(s, [1e6 if s == 3 else 1.0]) for s in range(10)))
    feed(reporter, *(make_sample(s, [1.0]) for s in range(10, 20)))
    assert [row["gradwatch/log10_norm"] for _, row in logger.rows] == [0.0, 0.0]
    assert [row["gradwatch/log10_norm_highest"] for _, row in logger.rows] == [6.0, 0.0]


def test_non_finite_steps_are_counted_and_shown() -> None:
    logger = PlainLogger()
    reporter = started(logger)
    feed(reporter, *(make_sample(s, [v, 1.0]) for s, v in enumerate([NAN, 100.0, INF, NAN])))
    feed(reporter, make_sample(4, [INF, NAN]))
    (_, first), (_, second) = logger.rows
    assert math.isnan(first["gradwatch/log10_norm"])
    assert first["gradwatch/nonfinite_steps"] == 3.0
    assert first["gradwatch/log10_norm_highest"] == pytest.approx(2.0, abs=1e-4)
    assert first["gradwatch/log10_layer_norm_median"] == 0.0
    assert second["gradwatch/nonfinite_steps"] == 1.0
    assert "gradwatch/log10_layer_norm_median" not in second


def test_zero_and_missing_gradients() -> None:
    logger = PlainLogger()
    reporter = started(logger)
    feed(reporter, make_sample(0, [0.0, 0.0]))
    feed(reporter, make_sample(1, [None, None]))
    feed(reporter, make_sample(2, []))
    (_, zero), (_, missing), (_, nothing) = logger.rows
    assert zero["gradwatch/log10_norm"] == -45.0
    assert zero["gradwatch/log10_first_to_last"] == 0.0
    assert set(missing) == set(nothing) == {
        "gradwatch/clipped_fraction", "gradwatch/nonfinite_steps",
        "gradwatch/findings", "gradwatch/interventions",
    }  # fmt: skip


def test_clipped_fraction_and_counts_begin_anew_with_each_row() -> None:
    logger = PlainLogger()
    reporter = started(logger)
    for s in range(4):
        reporter.action(ActionRecord("ClipGradNorm", s, ""))
    norms = [(5.0, 1.0), (5.0, 5.0), (5.0, 5.0 * (1 - 1e-9)), (5.0, NAN)]
    feed(reporter, *(make_sample(s, [n], clipped_norm=c) for s, (n, c) in enumerate(norms)))
    feed(reporter, make_sample(4, [5.0], clipped_norm=5.0))
    (_, first), (_, second) = logger.rows
    assert first["gradwatch/clipped_fraction"] == 0.25
    assert first["gradwatch/interventions"] == 4.0
    assert second["gradwatch/clipped_fraction"] == second["gradwatch/interventions"] == 0.0


def test_findings_are_counted_once_however_often_they_worsen() -> None:
    logger = PlainLogger()
    reporter = started(logger)
    reporter.finding(found("vanishing", ["a"], severity=Severity.WARNING))
    reporter.finding(found("vanishing", ["a"], severity=Severity.ERROR))
    reporter.finding(found("spike", ["a"], severity=Severity.INFO))
    feed(reporter, make_sample(11))
    assert logger.rows[0][1]["gradwatch/findings"] == 1.0


def test_optimizers_have_names_and_extremes_of_their_own() -> None:
    logger = PlainLogger()
    reporter = started(logger)
    for step in range(3):
        reporter.sample(make_sample(step, [10.0, None], optimizer=0))
        reporter.sample(make_sample(step, [None, 1000.0 if step == 1 else 1.0], optimizer=1))
    reporter.log(make_sample(2, [10.0, None], optimizer=0))
    reporter.log(make_sample(2, [None, 1.0], optimizer=1))
    (_, first), (_, second) = logger.rows
    assert first["gradwatch/log10_norm_highest"] == 1.0
    assert second["gradwatch/log10_norm_highest-1"] == 3.0
    assert all(name.endswith("-1") for name in second)
    assert set(first).isdisjoint(second)


def test_charts_and_text_go_to_writers_that_know_them() -> None:
    plain, rich = PlainLogger(), TextLogger()
    reporter = started(plain, rich)
    feed(reporter, make_sample(0, [1.0, 2.0]))
    feed(reporter, make_sample(1, [1.0, 2.0]))
    assert len(plain.rows) == len(rich.rows) == 2
    assert rich.experiment.layouts == [layout([0])]
    reporter.finding(found("exploding", ["a"], last_step=1))
    (tag, text, step) = rich.experiment.texts[0]
    assert (tag, step) == ("gradwatch/diagnosis", 1)
    assert "Summary of exploding." in text
    reporter.finish(Report.build(History()))
    assert rich.experiment.texts[1][1].startswith("# GradWatch")


def test_the_layout_has_charts_for_every_optimizer() -> None:
    logger = TextLogger()
    reporter = started(logger)
    for optimizer in (0, 1):
        feed(reporter, make_sample(0, [1.0], optimizer=optimizer))
    charts = logger.experiment.layouts[-1]["GradWatch"]
    assert len(charts) == 8
    assert charts["trouble (optimizer 1)"][1][0] == "^gradwatch/findings-1$"


def test_charts_and_text_can_be_turned_off() -> None:
    logger = TextLogger()
    reporter = LoggersReporter(charts=False, text=False)
    reporter.start(RunInfo(loggers=[logger]))
    feed(reporter, make_sample(0))
    reporter.finding(found("spike"))
    reporter.finish(Report())
    assert (logger.experiment.layouts, logger.experiment.texts) == ([], [])
    assert len(logger.rows) == 1
    with pytest.raises(TypeError, match="charts must be True or False, got 'no'"):
        LoggersReporter(charts="no")  # type: ignore[arg-type]


def test_a_logger_that_fails_is_left_alone_and_the_others_go_on() -> None:
    broken, well = BrokenLogger(after=1), PlainLogger()
    reporter = started(broken, well)

    def fit() -> None:
        for step in range(4):
            feed(reporter, make_sample(step))

    with pytest.warns(GradWatchWarning, match="BrokenLogger.*ConnectionError: no route") as caught:
        fit()
    assert len(caught) == 1
    assert broken.calls == 2
    assert len(well.rows) == 4


def test_an_experiment_that_fails_is_no_better() -> None:
    class Offline(PlainLogger):
        @property
        def experiment(self) -> object:
            raise RuntimeError("not logged in")

    offline, well = Offline(), TextLogger()
    reporter = started(offline, well)
    with pytest.warns(GradWatchWarning, match="Offline"):
        reporter.finding(found("spike"))
    assert len(well.experiment.texts) == 1


def test_without_loggers_nothing_is_done() -> None:
    reporter = started()
    feed(reporter, make_sample(0))
    reporter.finding(found("spike"))
    reporter.action(ActionRecord("SkipStep", 0, ""))
    reporter.finish(Report())
    assert reporter._windows == {}


def test_a_second_fit_begins_anew_and_copies_hold_no_logger() -> None:
    first, second = TextLogger(), TextLogger()
    reporter = started(first)
    reporter.finding(found("vanishing"))
    reporter.sample(make_sample(3, [1e9]))
    assert copy.deepcopy(reporter)._loggers == []
    assert reporter._loggers == [first]
    reporter.finish(Report())
    assert pickle.loads(pickle.dumps(reporter))._loggers == []
    reporter.start(RunInfo(loggers=[second]))
    feed(reporter, make_sample(0, [1.0]))
    assert second.rows[0][1]["gradwatch/findings"] == 0.0
    assert second.rows[0][1]["gradwatch/log10_norm_highest"] == 0.0


def test_every_chart_of_the_layout_is_written() -> None:
    logger = TextLogger()
    feed(started(logger), make_sample(0, [1.0, 2.0], clipped_norm=1.0, weight_norm=[1.0, 1.0]))
    (charts,) = logger.experiment.layouts[-1].values()
    wanted = {tag.strip("^$") for _, tags in charts.values() for tag in tags}
    assert wanted <= set(logger.rows[0][1])
