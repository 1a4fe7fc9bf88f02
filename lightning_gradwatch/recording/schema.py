"""The format on disk: names of files, tables and fields. `docs/recording.md` explains it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

#: Version of the format. A reader refuses newer ones; a new optional field needs no new version.
FORMAT_VERSION = 1

#: Name of the recording's folder inside a log directory.
FOLDER = "gradwatch"

#: A segment's files: the layout, the tables, the event log. `{}` is the segment's number.
META = "segment-{:04d}.json"
STEPS = "segment-{:04d}.steps.npy"
UPDATES = "segment-{:04d}.updates.npy"
PROFILES = "segment-{:04d}.profiles.jsonl"
FLOW = "segment-{:04d}.flow.jsonl"
EVENTS = "segment-{:04d}.events.jsonl"


def steps_dtype(parameters: int) -> np.dtype[np.void]:
    """Return the row of one optimizer step of `parameters` parameters.

    Example:
        >>> steps_dtype(2)["grad_norm"].shape
        (2,)
    """
    fields: list[Any] = [
        ("step", "<i8"),
        ("optimizer", "<i2"),
        ("epoch", "<i4"),
        ("batch_idx", "<i4"),
        ("loss", "<f8"),
        ("lr", "<f8"),
        ("global_norm", "<f8"),
        ("clipped_norm", "<f8"),
        ("accumulated", "<f4"),
        ("amp_overflow", "?"),
        ("grad_norm", "<f4", (parameters,)),
        ("has_grad", "?", (parameters,)),
    ]
    return np.dtype(fields)


def updates_dtype(parameters: int) -> np.dtype[np.void]:
    """Return the row of one sampled weight update of `parameters` parameters."""
    fields: list[Any] = [
        ("step", "<i8"),
        ("optimizer", "<i2"),
        ("weight_norm", "<f4", (parameters,)),
        ("update_norm", "<f4", (parameters,)),
        ("descent", "<f4", (parameters,)),
        ("agreement", "<f4"),
    ]
    return np.dtype(fields)


def number_of(name: str) -> int | None:
    """Return the number of the segment that a file belongs to; None if it belongs to none.

    Example:
        >>> number_of("segment-0012.steps.npy"), number_of("events.out.tfevents.1")
        (12, None)
    """
    if not name.startswith("segment-"):
        return None
    number = name[len("segment-") :].partition(".")[0]
    return int(number) if number.isdecimal() else None


def segment_numbers(folder: Path) -> list[int]:
    """Return the numbers of the segments in a folder, ascending; none if there is no folder."""
    names = [path.name for path in folder.glob("segment-*")] if folder.is_dir() else []
    return sorted({n for name in names if (n := number_of(name)) is not None})


def recording_folder(path: str | Path) -> Path:
    """Return the recording's folder for a log directory, or for that folder itself.

    Example:
        >>> recording_folder("runs/version_0").as_posix()
        'runs/version_0/gradwatch'
        >>> recording_folder("runs/version_0/gradwatch").as_posix()
        'runs/version_0/gradwatch'
    """
    path = Path(path)
    if path.name == FOLDER or any(path.glob("segment-*")):
        return path
    return path / FOLDER
