"""Recordings to look at: runs of the examples, and some whose every cell is known."""

from __future__ import annotations

import os
import time
from pathlib import Path

from examples import classic_failures, mlp, rnn
from examples.options import quiet
from lightning_gradwatch import Finding, Severity
from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.recording import RecordingWriter
from lightning_gradwatch.testing import make_sample

#: Steps of the run with a spike, and where it is.
LONG = 4000
SPIKE = 2717


def train_examples(root: Path) -> None:
    """Train three examples as their users do, for a few steps."""
    quiet()
    for module, name, flags in (
        (mlp, "sick", []),
        (mlp, "cured", ["--batch-norm"]),
        (rnn, "rnn", []),
        (classic_failures, "overflow", ["--case", "overflow"]),
    ):
        words = ["--quick", "--steps", "60", "--logdir", str(root / name), *flags]
        module.train(module.make_arguments().parse_args(words))


def write_known(folder: Path) -> None:
    """A hundred steps of five layers, each with one step that is not like the others."""
    writer = RecordingWriter(folder, buffer_rows=32)
    for step in range(100):
        writer.add(
            make_sample(
                step,
                {
                    "net.0.weight": 100.0 if step == 60 else 1.0,
                    "net.1.weight": 1e-5 if step == 30 else 1e-3,
                    "net.2.weight": float("nan") if step == 10 else 1.0,
                    "net.3.weight": None if step == 20 else 1.0,
                    "net.4.weight": float("inf") if step == 40 else 1.0,
                },
                loss=1.0,
                lr=0.1,
            )
        )
    writer.action(ActionRecord("SkipStep", 10, "NaN in net.2", 1.0, 0.0))
    found = Finding(
        "spike",
        Severity.WARNING,
        ("net.0",),
        60,
        60,
        1,
        {"ratio": 100.0},
        "A jump of ×100.",
        "Why?",
    )
    writer.close([found])


def write_spike(folder: Path) -> None:
    """Thousands of quiet steps, and one layer that jumps at one of them."""
    writer = RecordingWriter(folder)
    quiet_step = {f"blocks.{i}.weight": 1.0 for i in range(6)}
    for step in range(LONG):
        loud = {"blocks.4.weight": 1000.0} if step == SPIKE else {}
        writer.add(make_sample(step, {**quiet_step, **loud}, loss=1.0, lr=0.1))
    writer.close([])


def write_turns(folder: Path) -> None:
    """Two networks that train by turns, one layer frozen, one zero, one that joins half-way."""
    writer = RecordingWriter(folder, buffer_rows=8)
    for step in range(80):
        first = step % 2 == 0
        norms: dict[str, float | None] = {
            "g.weight": 1.0 if first else None,
            "d.weight": None if first else 1.0,
            "frozen.weight": None,
            "zero.weight": 0.0,
        }
        late: dict[str, float | None] = {"late.weight": 1.0} if step >= 40 else {}
        writer.add(make_sample(step, norms | late, optimizer=step % 2, loss=1.0, lr=0.1))
    writer.close([])


def write_huge(folder: Path, layers: int = 10_000) -> None:
    """Twenty steps of very many layers, one of which has a NaN at one step."""
    writer = RecordingWriter(folder)
    quiet_step = {f"blocks.{i}.linear.weight": 1.0 for i in range(layers)}
    layout = make_sample(0, quiet_step).layout
    for step in range(20):
        broken = {"blocks.4321.linear.weight": float("nan")} if step == 7 else {}
        norms = quiet_step | broken
        writer.add(make_sample(step, norms, layout=layout, loss=1.0, lr=0.1))
    writer.close([])


def write_twice(folder: Path) -> None:
    """Two processes write into one folder; the earlier one goes on long after the later began."""
    writers = [RecordingWriter(folder, buffer_rows=1) for _ in range(2)]
    for step in range(6):
        for writer in writers:
            writer.add(make_sample(step, {"a.weight": 1.0}, loss=1.0, lr=0.1))
    for writer in writers:
        writer.close([])
    late = time.time() + 120
    os.utime(folder / "segment-0000.steps.npy", (late, late))


def tear(folder: Path) -> None:
    """Cut the last bytes off the steps, as a kill did an hour ago."""
    table = folder / "segment-0000.steps.npy"
    table.write_bytes(table.read_bytes()[:-7])
    for path in folder.iterdir():
        os.utime(path, (time.time() - 3600,) * 2)


#: A run and a layer with characters that mean something to browsers, servers and shells.
ODD_RUN, ODD_LAYER = "odd <b>näme</b> & 100%#x", 'läyer <i>"q"'


def write_bad(root: Path) -> None:
    """Runs that are no trouble to write down and may be some to show."""
    bad: dict[str, dict[str, float | None]] = {
        ODD_RUN: {f"{ODD_LAYER}.weight": 1.0},
        "all nan": {"a.weight": float("nan"), "b.weight": float("nan")},
        "no gradient": {"a.weight": None},
        "all zero": {"a.weight": 0.0, "b.weight": 0.0},
    }
    for name, norms in bad.items():
        writer = RecordingWriter(root / name / "gradwatch")
        for step in range(3):
            writer.add(make_sample(step, norms, loss=1.0, lr=0.1))
        writer.close([])
    RecordingWriter(root / "no steps" / "gradwatch").close([])
    one = RecordingWriter(root / "one step" / "gradwatch")
    one.add(make_sample(0, {"a.weight": 2.0, "b.weight": 3.0}, loss=1.0, lr=0.1))
    one.close([])
    RecordingWriter(root / "newer" / "gradwatch").close([])
    about = root / "newer" / "gradwatch" / "segment-0000.json"
    about.write_text('{"format_version": 99}', encoding="utf-8")
