"""Where and with what figures were taken: a table without it means nothing."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

from lightning_gradwatch.version import __version__


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str:
    """Return the commit that is checked out, marked if code in it was changed."""
    found = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
    return (found or "unknown") + (" with changes" if changed else "")


def load() -> float:
    """Processes that wanted to run in the last minute."""
    return os.getloadavg()[0]


def about(module: str, arguments: Sequence[str], measured: str, loads: Sequence[float]) -> str:
    """Return a paragraph on command, commit, machine, versions and how busy the machine was.

    Args:
        module: What was run, `benchmarks.overhead`.
        arguments: Its command line.
        measured: `commit()` before it ran.
        loads: `load()` before and, now and then, while it ran. This benchmark itself is 1 of it.
    """
    busy = max(loads, default=0.0)
    command = f"python -m {shlex.join([module, *arguments])}"
    lightning = version("pytorch_lightning")
    text = (
        f"`{command}` at {measured}, {date.today()}: {processor()}, {os.cpu_count()} cores, "
        f"Python {sys.version.split()[0]}, torch {torch.__version__}, Lightning {lightning}, "
        f"lightning_gradwatch {__version__}, one thread. Load of the machine up to {busy:.1f}."
    )
    if busy > 1.6:
        text += (
            " **Taken on a busy machine: others ran beside, and wall times and spreads show it.**"
        )
    return text


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], check=True, capture_output=True, text=True,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
