"""The recordings below one log directory or several, by TensorBoard's names of runs."""

from __future__ import annotations

import math
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from lightning_gradwatch.recording import schema
from lightning_gradwatch.recording.remote import download, is_remote
from lightning_gradwatch.view.run import RecordedRun

#: Seconds for which a look into the directories holds, and into remote ones.
FRESH, REMOTE_FRESH = 3.0, 30.0

#: How many times longer than a look took there is to be none.
SHARE = 10.0

#: Memory of all runs that are held open; past it the one not asked for longest is closed.
MAX_BYTES = 512 * 2**20


def parse_logdir_spec(spec: str) -> dict[str, str]:
    """Return the directories of TensorBoard's `--logdir_spec`, by the names it gives them.

    Example:
        >>> parse_logdir_spec("a:runs,/b:c")
        {'a': 'runs', '': '/b:c'}
    """
    folders: dict[str, str] = {}
    for part in filter(None, spec.split(",")):
        name, colon, path = part.partition(":")
        named = colon and not part.startswith(("/", "~")) and not os.path.splitdrive(part)[0]
        name, path = (name, path) if named and not path.startswith("//") else ("", part)
        folders[name if name not in folders else f"{name}{len(folders)}"] = path
    return folders


def find_recordings(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name and the folder of each recording below a folder, or of that folder itself.

    Nothing outside the folder is looked at: links to directories are not followed, and a recording
    with a link that leads out of it is left out.

    Args:
        folder: A log directory, a run's, or a recording.
    """
    root = os.path.realpath(folder)
    for here, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        segments = [name for name in files if name.startswith("segment-")]
        if not any(name.endswith((".json", ".events.jsonl")) for name in segments):
            continue
        if not all(_inside(os.path.join(here, name), root) for name in segments):
            continue
        path = Path(here)
        # The run is the folder that TensorBoard names: the one that holds the recording's.
        owner = path.parent if path.name == schema.FOLDER and here != root else path
        yield Path(os.path.relpath(owner, root)).as_posix(), path


def _inside(path: str, root: str) -> bool:
    if not os.path.islink(path):
        return True
    return os.path.commonpath([os.path.realpath(path), root]) == root


def readable(name: str) -> str:
    """Return a name without bytes that are no text: it has to go to a browser and come back."""
    return name.encode("utf-8", "replace").decode("utf-8")


def natural(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key that puts `version_2` before `version_10`.

    Example:
        >>> sorted(["version_10", "version_2"], key=natural)
        ['version_2', 'version_10']
    """
    parts = re.split(r"(\d+)", name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


class Catalogue:
    """Finds recordings, opens them when asked, and closes the ones that nobody looks at.

    Args:
        folders: Log directories by name, paths or remote addresses; the name comes before those of
            their runs. An empty name adds nothing.
        max_bytes: Memory of the runs held open.
    """

    def __init__(self, folders: Mapping[str, str | Path], max_bytes: int = MAX_BYTES) -> None:
        self.folders = dict(folders)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._found: dict[str, Path] = {}
        self._open: dict[str, RecordedRun] = {}
        self._looked = -math.inf
        self._copies: dict[str, tempfile.TemporaryDirectory[str]] = {}
        self._fresh = REMOTE_FRESH if any(map(is_remote, folders.values())) else FRESH
        self._pause = 0.0
        self._looking: threading.Thread | None = None
        self.problems: tuple[str, ...] = ()

    def look(self, patience: float = 10.0) -> Mapping[str, Path]:
        """Return the folders of the recordings by run, in natural order.

        Args:
            patience: Seconds to wait for a large directory; what was known is returned after it.
        """
        with self._lock:
            if self._looking is None and time.monotonic() - self._looked > self._pause:
                self._looking = threading.Thread(target=self._walk, daemon=True)
                self._looking.start()
            looking = self._looking
        if looking is not None:
            looking.join(patience)
        return self._found

    def _walk(self) -> None:
        start = time.monotonic()
        try:
            self._find()
        finally:
            with self._lock:
                self._looked, self._looking = time.monotonic(), None
                # A large tree on a slow disk is not walked through without a pause.
                self._pause = max(self._fresh, SHARE * (self._looked - start))

    def _find(self) -> None:
        found: dict[str, Path] = {}
        problems = []
        for name, folder in self.folders.items():
            try:
                local = self._local(folder)
            except Exception as error:  # stores have errors of their own
                problems.append(f"cannot read {str(folder)!r}: {type(error).__name__}: {error}")
                continue
            if not local.is_dir():
                problems.append(f"there is no directory {str(folder)!r}")
                continue
            for run, path in find_recordings(local):
                run = readable(f"{name}/{run}" if name else run)
                found[run if run not in found else f"{run}/{path.name}"] = path
        self.problems = tuple(problems)
        self._found = {run: found[run] for run in sorted(found, key=natural)}

    def _local(self, folder: str | Path) -> Path:
        """Return a local directory: of a remote one a copy of its recordings, up to date."""
        if not is_remote(folder):
            return Path(folder).expanduser()
        address = str(folder)
        if address not in self._copies:
            self._copies[address] = tempfile.TemporaryDirectory(prefix="gradwatch-")
        copy = Path(self._copies[address].name)
        download(address, copy)
        return copy

    def open(self, name: str) -> RecordedRun | None:
        """Return a run, as far as it has been read; None if there is none of that name."""
        path = self._found.get(name) or self.look().get(name)
        if path is None:
            return None
        with self._lock:
            run = self._open.pop(name, None)
            if run is None or run.folder != path:
                run = RecordedRun(path)
            self._open[name] = run  # the latest comes last
            for other in list(self._open):
                if sum(each.nbytes for each in self._open.values()) <= self._max_bytes:
                    break
                if other != name:
                    del self._open[other]
        return run
