"""Every example runs as a script and as a module, in its quick mode, and says what to do next."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def run(words, folder):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words, "--quick", "--logdir", str(folder)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done, time.perf_counter() - start


@pytest.mark.parametrize(
    "words",
    [
        ["examples/mlp.py"],
        ["-m", "examples.mlp"],
        ["examples/residual.py"],
        ["-m", "examples.rnn"],
        ["examples/classic_failures.py"],
        ["-m", "examples.custom_detector"],
        ["examples/rescue.py"],
        ["-m", "examples.demo"],
    ],
    ids=" ".join,
)
def test_quick(words, tmp_path):
    done, seconds = run(words, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "GradWatch" in done.stdout
    assert "guessing" in done.stdout
    assert f"tensorboard --logdir {tmp_path}" in done.stdout
    assert list(tmp_path.rglob("events.out.tfevents.*"))
    assert seconds < 60  # ten on an idle machine; tests run on busy ones


def test_every_remedy_quick():
    done = subprocess.run(
        [sys.executable, "-m", "examples.remedies", "--quick"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert "twice as deep" in done.stdout
    assert "n/a: acts through time" in done.stdout
    assert "hold" not in done.stdout  # six steps are no ground for a verdict
