"""The command line: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_gradwatch.cli.main import COMMANDS, main
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.recording import RecordingWriter, read_recording, schema
from lightning_gradwatch.report import Report
from lightning_gradwatch.testing import make_sample

SICK = Finding(
    "exploding", Severity.ERROR, ("layer0",), 3, 5, 3,
    summary="It grows", cause="The rate", remedies=("Less",),
)  # fmt: skip
MINE = Finding("my.code", Severity.WARNING, (), 1, 1, summary="Mine")


def record(folder: Path, *findings: Finding, steps: int = 6) -> None:
    writer = RecordingWriter(folder / "gradwatch")
    for t in range(steps):
        writer.add(make_sample(t, [1.0 + t, 2.0], loss=1.0))
    writer.close(findings)


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    record(tmp_path / "logs" / "version_2", SICK, MINE)
    record(tmp_path / "logs" / "version_10")
    return tmp_path / "logs"


Capture = pytest.CaptureFixture[str]


def test_ls(logs: Path, capsys: Capture):
    assert main(["ls", str(logs)]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["run", "steps", "layers", "written", "verdict"]
    assert [line.split()[0] for line in lines] == ["version_2", "version_10"]
    assert lines[0].endswith("exploding gradients and my.code")
    assert lines[1].endswith("healthy")


@pytest.mark.parametrize(
    ("what", "runs", "code"),
    [
        ("error", [], 1),
        ("warning", ["version_10"], 0),
        ("warning", ["version_2"], 1),
        ("EXPLODING", [], 1),
        ("vanishing, nonfinite", [], 0),
        ("my.code", [], 1),
        ("my.other", [], 0),
        ("info", ["version_10"], 0),
    ],
)
def test_check(logs: Path, capsys: Capture, what: str, runs: list[str], code: int):
    chosen = [word for run in runs for word in ("--run", run)]
    assert main(["check", str(logs), "--fail-on", what, *chosen]) == code
    out = capsys.readouterr().out
    assert ("FAIL" in out) == bool(code)
    if what == "error":
        assert "ERROR exploding · steps 3 to 5, 3 times · layer0" in out
        assert "It grows." in out


def test_a_run_that_is_the_log_directory_itself_has_a_name(logs: Path, capsys: Capture):
    main(["check", str(logs / "version_2"), "--fail-on", "no_gradient"])
    assert capsys.readouterr().out.split()[1] == "version_2"


def test_check_cannot_be_told(logs: Path, tmp_path: Path, capsys: Capture):
    for arguments, words in (
        ([str(logs), "--fail-on", "explosion"], "'explosion' is none of error, warning"),
        ([str(logs), "--fail-on", ","], "none of"),
        ([str(logs), "--run", "version_3"], "there are version_2, version_10"),
        ([str(tmp_path / "nope")], "no directory"),
    ):
        assert main(["check", *arguments]) == 2
        assert words in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["check", str(tmp_path / "empty")]) == 2
    assert "no recording below" in capsys.readouterr().err
    record(tmp_path / "none", steps=0)
    assert main(["check", str(tmp_path / "none")]) == 2
    assert "nothing to judge" in capsys.readouterr().err
    writer = RecordingWriter(tmp_path / "zeros" / "gradwatch")
    for t in range(5):
        writer.add(make_sample(t, [0.0, 0.0]))
    writer.close([])
    assert main(["check", str(tmp_path / "zeros")]) == 2
    assert "every gradient is exactly zero, so there is nothing" in capsys.readouterr().err
    meta = logs / "version_2" / "gradwatch" / schema.META.format(0)
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"format_version": 99}))
    assert main(["check", str(logs)]) == 2
    assert "pip install --upgrade" in capsys.readouterr().err


def test_report_is_that_of_the_recording(logs: Path, capsys: Capture):
    report = Report.from_recording(read_recording(logs / "version_2"))
    for kind, expected in (
        ("text", f"{report}\n"),
        ("md", report.to_markdown()),
    ):
        assert main(["report", str(logs), "--run", "version_2", "--format", kind]) == 0
        assert capsys.readouterr().out == expected
    assert main(["report", str(logs / "version_2"), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == report.to_dict()


def test_report_without_run_is_the_latest_and_says_so(logs: Path, capsys: Capture):
    assert main(["report", str(logs)]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("GradWatch: healthy")
    assert "'version_10', the latest of 2 runs" in shown.err


@pytest.mark.parametrize("name", ["r.html", "r.md", "r.txt", "r.json"])
def test_report_into_a_file(logs: Path, tmp_path: Path, name: str, capsys: Capture):
    file = tmp_path / name
    assert main(["report", str(logs / "version_2"), "-o", str(file)]) == 0
    assert "exploding gradients" in capsys.readouterr().out
    text = file.read_text(encoding="utf-8")
    report = Report.from_recording(read_recording(logs / "version_2"))
    if name != "r.html":
        assert text == report.save(tmp_path / f"saved{name}").read_text(encoding="utf-8")
    else:
        assert "<title>GradWatch: exploding gradients and my.code</title>" in text


def test_report_of_several_runs(logs: Path, tmp_path: Path, capsys: Capture):
    both = ["--run", "version_10", "--run", "version_2"]
    assert main(["report", str(logs), *both, "--format", "json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["version_10", "version_2"]
    assert main(["report", str(logs), *both, "-o", str(tmp_path / "r.html")]) == 0
    data = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert '"run":"version_10"' in data
    assert '"run":"version_2"' in data


def test_report_asks_back(logs: Path, tmp_path: Path, capsys: Capture):
    for arguments, words in (
        (["-o", str(tmp_path / "r.pdf")], "which format is 'r.pdf'"),
        (["-o", str(tmp_path / "no" / "r.md")], "cannot write"),
        (["--run", "x"], "no run 'x'"),
    ):
        assert main(["report", str(logs), *arguments]) == 2
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["report"])
    assert stop.value.code == 2


def test_replay_says_how(tmp_path: Path, capsys: Capture):
    batch = tmp_path / "batch'.pt"
    batch.write_bytes(b"")
    assert main(["replay", str(batch)]) == 0
    out = capsys.readouterr().out
    assert f"load_batch({str(batch)!r})" in out
    code = out[out.index("    import torch") :]
    compile("\n".join(line[4:] for line in code.splitlines()), "replay", "exec")
    assert main(["replay", str(tmp_path / "nope")]) == 2
    assert "no file" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: Capture):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: gradwatch {command}" in capsys.readouterr().out


def test_names_that_the_terminal_cannot_show(tmp_path: Path):
    record(tmp_path / "größe \udcff <b>", SICK)
    for command in ("ls", "check", "report"):
        done = subprocess.run(
            [sys.executable, "-m", "lightning_gradwatch.cli.main", command, str(tmp_path)],
            env={"PYTHONIOENCODING": "ascii", "PATH": ""}, capture_output=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == (command == "check"), done.stderr
        assert done.stdout.isascii()
    (run,) = (path.name for path in tmp_path.iterdir())
    for name in ("r.html", "r.md"):
        file = tmp_path / name
        assert main(["report", str(tmp_path), "--run", run, "-o", str(file)]) == 0
        assert "exploding gradients" in file.read_text(encoding="utf-8")


def spent() -> float:
    """CPU seconds of processes that have ended: other work on the machine does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_without_torch_and_fast(logs: Path):
    """Neither torch nor Lightning; and start to end in 0.3 s of CPU time, the fastest of five."""
    code = (
        "import sys\n"
        "from lightning_gradwatch.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "bad = {'torch', 'lightning', 'pytorch_lightning', 'tensorboard'} & set(sys.modules)\n"
        "assert not bad, bad\n"
        "sys.exit(code)\n"
    )
    for command in (["check", "--fail-on", "vanishing"], ["ls"], ["report"], ["report", "-o", "x"]):
        arguments = [command[0], str(logs), *command[1:]]
        if "-o" in arguments:
            arguments[-1] = str(logs / "x.html")
        took = []
        while len(took) < 5 and min(took, default=9.0) > 0.3:
            start = spent()
            subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=60,
                           capture_output=True)  # fmt: skip
            took.append(spent() - start)
        assert min(took) < 0.3, (command, took)


def test_a_reader_that_has_seen_enough(logs: Path):
    done = subprocess.run(
        f"{sys.executable} -m lightning_gradwatch.cli.main report {logs} 2>&1 | head -1",
        shell=True, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
