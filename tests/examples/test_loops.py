"""Loops without a Trainer, and two processes: what they print is what was seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples import distributed, fabric, plain_pytorch
from lightning_gradwatch import Report
from lightning_gradwatch.recording import read_recording

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def arguments(example, tmp_path, *switches):
    return example.make_arguments().parse_args(["--logdir", str(tmp_path), "--quick", *switches])


@pytest.mark.parametrize("example", [plain_pytorch, fabric])
def test_sick_and_cured_are_told_and_recorded(example, tmp_path, capsys):
    example.main(["--logdir", str(tmp_path / "sick"), "--quick"])
    sick = capsys.readouterr().out
    assert "GradWatch: vanishing (ERROR)" in sick
    assert "--batch-norm\n      normalise before each activation" in sick
    recording = read_recording(tmp_path / "sick" / "gradwatch")
    assert Report.from_recording(recording).verdict == "vanishing gradients"
    assert recording.recorded == 110
    assert recording.layers[0] == "linear0"
    cured = example.train(arguments(example, tmp_path / "cured", "--batch-norm"))
    assert cured.watch.healthy
    assert cured.score > 0.6
    assert cured.watch.history.layers[0] == "linear0"


def test_both_loops_are_the_same_training(tmp_path):
    runs = [
        example.train(arguments(example, tmp_path / example.__name__, "--batch-norm"))
        for example in (plain_pytorch, fabric)
    ]
    first, second = (run.watch.history for run in runs)
    assert np.array_equal(first.grad_norm, second.grad_norm)
    assert runs[0].score == runs[1].score


def test_accumulation_makes_fewer_steps(tmp_path):
    run = plain_pytorch.train(arguments(plain_pytorch, tmp_path, "--accumulate", "4"))
    assert len(run.watch.history) == 27
    assert run.watch.history.loss[0] == pytest.approx(np.log(10), rel=0.1)


@pytest.mark.parametrize("example", [plain_pytorch, fabric])
def test_as_many_steps_as_were_asked_for(example, tmp_path):
    run = example.train(arguments(example, tmp_path, "--steps", "30"))
    assert run.watch.history.steps.tolist() == [*range(30)]


@pytest.mark.parametrize(
    "words",
    [["examples/distributed.py"], ["-m", "examples.distributed", "--strategy", "fsdp2"]],
    ids=" ".join,
)
def test_two_processes_by_one_command(words, tmp_path):
    done = subprocess.run(
        [sys.executable, *words, "--quick", "--nan-on-rank", "1", "--logdir", str(tmp_path)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "10 parameters at 22 steps: the same on both ranks, bit for bit" in done.stdout
    assert "skipped steps: 5 on rank 0, 5 on rank 1" in done.stdout
    share = "8,645 and 8,645" if "fsdp2" in words else "17,290 and 17,290"
    assert f"the ranks hold {share} weights" in done.stdout
    assert done.stdout.count("guessing") == 1  # one rank speaks
    accuracy = done.stdout.partition("accuracy ")[2].partition("%")[0]
    assert float(accuracy) > 60
    assert len(list(tmp_path.rglob("*.steps.npy"))) == 1
    assert len(list(tmp_path.rglob("events.out.tfevents.*"))) == 1


def test_ranks_that_differ_are_not_called_the_same():
    def rank(*norms, skipped=()):
        return {"norms": np.array([norms]), "weights": 1, "skipped": list(skipped)}

    nan = float("nan")
    assert "the same on both" in distributed.story([rank(1.0, nan), rank(1.0, nan)])[1]
    assert "NOT THE SAME" in distributed.story([rank(1.0, nan), rank(1.0, 2.0)])[1]
    told = distributed.story([rank(1.0, skipped=[3]), rank(1.0)])
    assert told[2] == "skipped steps: 3 on rank 0, none on rank 1"
