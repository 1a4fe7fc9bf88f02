"""Which recordings a command is about."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_gradwatch.recording import Recording, read_recording
from lightning_gradwatch.recording.remote import download, is_remote
from lightning_gradwatch.view.catalogue import find_recordings, natural
from lightning_gradwatch.view.files import fingerprint


class UsageError(Exception):
    """The command cannot be carried out as it was given; the message says what would do."""


def find_runs(logdir: str) -> dict[str, Path]:
    """Return the recordings below a log directory by run, in natural order.

    Args:
        logdir: A path, or a remote address, whose recordings are copied here for the time being.

    Raises:
        UsageError: There is no such directory, or no recording in it.
    """
    folder = Path(logdir)
    if is_remote(logdir):
        folder = Path(tempfile.mkdtemp(prefix="gradwatch-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        try:
            download(logdir, folder)
        except Exception as error:  # stores have errors of their own
            raise UsageError(f"cannot read {logdir!r}: {type(error).__name__}: {error}") from error
    if not folder.is_dir():
        raise UsageError(f"there is no directory {logdir!r}")
    found = dict(find_recordings(folder))
    if not found:
        raise UsageError(
            f"no recording below {logdir!r}: GradWatch() writes one below the log directory "
            "that a logger gives the run, GradWatch(record=PATH) writes one there"
        )
    return {run: found[run] for run in sorted(found, key=natural)}


def choose(found: Mapping[str, Path], wanted: Sequence[str]) -> dict[str, Path]:
    """Return the runs that were asked for, in the order asked.

    Raises:
        UsageError: There is no run of a name.
    """
    for name in wanted:
        if name not in found:
            raise UsageError(f"there is no run {name!r}; there are {', '.join(found)}")
    return {name: found[name] for name in wanted}


def latest(found: Mapping[str, Path]) -> str:
    """Return the run that was written to last."""
    return max(found, key=lambda run: fingerprint(found[run])[1])


def read(run: str, folder: Path) -> Recording:
    """Read a run's recording.

    Raises:
        UsageError: It was written by a newer version, or has gone.
    """
    try:
        return read_recording(folder)
    except (ValueError, OSError) as error:
        raise UsageError(f"{run}: {error}") from error


def called(run: str, folder: Path) -> str:
    """Return a name to show: `.` is the log directory itself, which says nothing."""
    if run != ".":
        return run
    resolved = folder.resolve()
    return resolved.parent.name if resolved.name == "gradwatch" else resolved.name
