"""What the files of a recording tell without being read: whether and when they were written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

from lightning_gradwatch.recording import schema
from lightning_gradwatch.view.segment import FOREVER, Segment

#: Seconds since the last write in which a run counts as being written.
RECENT = 30.0


def fingerprint(folder: Path) -> tuple[str, float]:
    """Return a string that changes with every write, and when the last one was."""
    marks, latest = [], 0.0
    try:
        for path in sorted(folder.glob("segment-*")):
            about = path.stat()
            marks.append(f"{path.name}:{about.st_size}:{about.st_ino}")
            latest = max(latest, about.st_mtime)
    except OSError:
        marks.append("?")
    return blake2b("\n".join(marks).encode("utf-8", "replace"), digest_size=8).hexdigest(), latest


def two_writers(segments: Sequence[Segment]) -> Iterator[str]:
    """Yield a warning for segments that went on growing while a later one was being made."""
    for early in segments:
        for late in segments:
            if late.number <= early.number or late.session == early.session:
                continue
            if early.until == FOREVER or not late.about:
                continue
            try:
                begun = (late.folder / schema.META.format(late.number)).stat().st_mtime
                written = early.steps.path.stat().st_mtime
            except OSError:
                continue
            if written > begun + RECENT:
                yield (
                    f"two runs seem to have written here at the same time: segment {early.number} "
                    f"went on after segment {late.number} had begun. Steps of both are taken from "
                    "the later one; give each run a folder of its own"
                )
