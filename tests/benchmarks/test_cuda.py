"""The GPU's benchmark runs, in tiny sizes on the CPU; without a GPU it says so."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from benchmarks.cuda import VARIANTS, Figure, table
from benchmarks.cuda_models import CASES, ResNet, Transformer


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.cuda", *arguments],
        capture_output=True, text=True, timeout=540, check=False,
    )  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so():
    done = benchmark("--rounds", "1")
    assert done.returncode == 2
    assert "CUDA" in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_everything_runs_in_tiny_sizes():
    done = benchmark("--tiny", "cpu", "--models", "mlp", "resnet50", "1B transformer, bf16")
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout, done.stderr
    for variant in VARIANTS:
        assert done.stdout.count(f"| {variant} |") == 3
    assert "no figure" in done.stdout


def test_a_variant_that_fails_is_said_to_and_nan_stays_nan():
    nan = float("nan")
    figures = {("mlp", "plain"): [Figure(2.0, 10.0)], ("mlp", "GradWatch()"): [Figure(nan, 11.0)]}
    lines = table(figures, ["mlp"])
    assert "| GradWatch() | nan | nan | nan to nan | 1.0 |" in lines
    assert "| plain | 2.000 | 1.000 | 1.000 to 1.000 | 0.0 |" in lines
    assert "| Trainer(gradient_clip_val) | it failed | | | |" in lines


def test_full_sizes_are_what_the_names_say():
    with torch.device("meta"):
        resnet = ResNet(CASES["resnet50"].full)
        transformer = Transformer(CASES["1B transformer, bf16"].full)
    assert sum(p.numel() for p in resnet.parameters()) == 25_557_032
    assert 1.0e9 < sum(p.numel() for p in transformer.parameters()) < 1.02e9
