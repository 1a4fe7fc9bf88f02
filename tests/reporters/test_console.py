"""What is said in the terminal, when, and in which form."""

from __future__ import annotations

import builtins
import io
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.finding import Severity
from lightning_gradwatch.report import Report
from lightning_gradwatch.reporters import ConsoleReporter, RunInfo
from lightning_gradwatch.reporters.console import footer
from tests.report.runs import ONES, TRANSFORMER, found, run

NAN = float("nan")

SICK = Report.build(
    run(TRANSFORMER, lambda step: [1.0, 1.0, NAN if step == 9 else 1.0, *ONES[3:]]),
    [
        found("exploding", ["embed"], summary="‖g‖ grew ×31"),
        found("vanishing", ["blocks.3.attn"], severity=Severity.WARNING),
    ],
    [ActionRecord("ClipGradNorm", s, "", 10.0, 1.0) for s in range(3)],
)


class Stream(io.TextIOWrapper):
    """A standard output of our choosing."""

    def __init__(self, terminal: bool, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


class TensorBoardLogger:
    """Known by its name alone."""

    def __init__(self, root_dir: str) -> None:
        self.root_dir = root_dir


@pytest.fixture
def finish(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Let a reporter finish, and return what it printed."""
    monkeypatch.setenv("COLUMNS", "110")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")

    def act(
        report: Report = SICK,
        reporter: ConsoleReporter | None = None,
        terminal: bool = True,
        encoding: str = "utf-8",
        **info: object,
    ) -> str:
        stream = Stream(terminal, encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        reporter = reporter or ConsoleReporter()
        reporter.start(RunInfo(**info))  # type: ignore[arg-type]
        reporter.finish(report)
        return stream.text()

    return act


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_terminal_gets_panel_and_table(finish: Callable[..., str]) -> None:
    out = finish()
    assert "╭" in out
    assert "diagnosis" in out
    text = plain(out)
    assert "● exploding gradients · ERROR · step 10 · embed" in text
    assert "‖g‖ grew ×31." in text
    assert "→ First remedy for exploding." in text
    assert re.search(
        r"^embed +100 +1\.00 +1\.00 +1\.00 +- +[▁-█]{28} +exploding", text, re.MULTILINE
    )
    assert re.search(r"^blocks\.1 .* ok\s*$", text, re.MULTILINE)
    assert "ClipGradNorm 3 times, up to 10 → 1" in text
    assert "tensorboard" not in text
    assert max(map(len, text.splitlines())) <= 110


def test_sick_blocks_are_red_or_blue_and_healthy_ones_green(finish: Callable[..., str]) -> None:
    lines = {
        plain(line).split()[0]: line for line in finish().splitlines() if "▅" in line or "▄" in line
    }
    assert "\x1b[31mexploding" in lines["embed"]
    assert "\x1b[34mvanishing" in lines["blocks.3"]
    assert "\x1b[32mok" in lines["blocks.1"]
    assert "\x1b[31m×" in lines["blocks.0"]


@pytest.mark.parametrize("width", [30, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(
    finish: Callable[..., str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = plain(finish(loggers=[TensorBoardLogger("runs")])).splitlines()
    assert max(map(len, lines)) <= width
    if width >= 80:
        assert sum("▅" in line or "▄" in line for line in lines) == 8
        assert "Curves: tensorboard --logdir runs" in lines[-1]


def test_healthy(finish: Callable[..., str]) -> None:
    out = finish(Report.build(run(TRANSFORMER, lambda _: ONES)))
    assert "\x1b[32m✓" in out
    assert "✓ healthy" in plain(out)


@pytest.mark.parametrize(
    "options",
    [{"terminal": False}, {"show_progress": False}, {"reporter": ConsoleReporter(summary="line")}],
)
def test_one_line(finish: Callable[..., str], options: dict[str, object]) -> None:
    assert finish(**options) == SICK.headline + "\n"


def test_nothing_recorded_is_one_line_in_a_terminal_too(finish: Callable[..., str]) -> None:
    assert finish(Report()) == Report().headline + "\n"


def test_off_and_full(finish: Callable[..., str]) -> None:
    assert finish(reporter=ConsoleReporter(summary="off")) == ""
    assert "blocks.3" in finish(reporter=ConsoleReporter(summary="full"), terminal=False)


def test_a_notebook_gets_the_table(
    finish: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builtins, "__IPYTHON__", True, raising=False)
    assert "blocks.3" in finish(terminal=False)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
@pytest.mark.parametrize("summary", ["full", "line"])
def test_ascii_where_the_terminal_knows_no_more(
    finish: Callable[..., str], encoding: str, summary: str
) -> None:
    out = finish(reporter=ConsoleReporter(summary=summary), encoding=encoding)  # type: ignore[arg-type]
    assert out.isascii()
    assert "|g| grew x31." in plain(out)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_plain_text_without_rich(
    finish: Callable[..., str], monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    for name in [m for m in sys.modules if m.split(".")[0] == "rich" or m.endswith("rich_view")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    out = finish(encoding=encoding, loggers=[TensorBoardLogger("runs")])
    assert "\x1b" not in out
    assert "GradWatch: exploding gradients and vanishing gradients\n" in out
    assert out.endswith("Curves: tensorboard --logdir runs\n")
    assert out.isascii() == (encoding == "ascii")


def test_no_more_rows_than_asked_for(finish: Callable[..., str]) -> None:
    out = plain(finish(reporter=ConsoleReporter(max_rows=3)))
    assert "5 of 8 blocks left out, none of them with a finding" in out
    assert "embed" in out
    assert "blocks.3" in out


def test_footer_names_the_command_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    class Mine(TensorBoardLogger):
        pass

    def command(root: str) -> str:
        return footer(RunInfo(loggers=[object(), Mine(root)]))

    assert command(str(tmp_path / "my runs")) == "Curves: tensorboard --logdir 'my runs'"
    assert command(str(tmp_path)) == "Curves: tensorboard --logdir ."
    assert command("/elsewhere/runs") == "Curves: tensorboard --logdir /elsewhere/runs"
    assert command("s3://bucket/runs") == "Curves: tensorboard --logdir s3://bucket/runs"
    assert footer(RunInfo(loggers=[object()])) == ""


def test_a_finding_is_one_warning_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "lightning_gradwatch"):
        ConsoleReporter().finding(found("exploding", ["a", "b", "c"], summary="It\n  grew"))
    ((name, level, text),) = caplog.record_tuples
    assert (name, level) == ("lightning_gradwatch", logging.WARNING)
    assert text == (
        "GradWatch ERROR: exploding gradients at step 10, a, b and 1 more. It grew. "
        "Try: First remedy for exploding."
    )


def test_notes_and_actions_are_information(caplog: pytest.LogCaptureFixture) -> None:
    reporter = ConsoleReporter()
    with caplog.at_level(logging.INFO, "lightning_gradwatch"):
        reporter.finding(found("spike", ["a"], severity=Severity.INFO))
        reporter.action(ActionRecord("DecayLR", 1200, "exploding", 0.1, 0.05))
        reporter.action(ActionRecord("SkipStep", 3, "NaN in\nhead"))
    assert {record.levelno for record in caplog.records} == {logging.INFO}
    assert [r.getMessage().replace("->", "→") for r in caplog.records][1:] == [
        "GradWatch step 1,200: DecayLR: 0.1 → 0.05 (exploding)",
        "GradWatch step 3: SkipStep (NaN in head)",
    ]


def test_the_log_can_be_silenced(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL, "lightning_gradwatch"):
        ConsoleReporter().finding(found("exploding"))
    assert caplog.records == []


def test_a_closed_output_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    ConsoleReporter().finish(SICK)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="auto, full, line, off, got 'loud'"):
        ConsoleReporter(summary="loud")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_rows must be >= 1, got 0"):
        ConsoleReporter(max_rows=0)
