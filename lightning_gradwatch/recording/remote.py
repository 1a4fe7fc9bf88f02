"""Recordings in remote log directories: written and read here, copied there and back by fsspec.

Object stores cannot be appended to, so a run is recorded in a temporary folder, and files that have
grown are copied as a whole: now and then while it runs, less often as that takes longer, and at the
end. Lightning brings fsspec with it; a store's own package (s3fs, gcsfs) is the user's.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

from lightning_gradwatch.recording import schema

#: Seconds between two copies while a run goes on, and how many times longer than the last one took.
PAUSE, SHARE = 60.0, 20.0


def is_remote(place: object) -> bool:
    """Return whether a log directory is an address and no path.

    Example:
        >>> is_remote("s3://bucket/logs"), is_remote("logs"), is_remote("C:/logs")
        (True, False, False)
    """
    return "://" in str(place)


class Upload:
    """Copies the files of a recording to a remote folder.

    Args:
        address: Address of the recording's folder, like `s3://bucket/run/gradwatch`.

    Attributes:
        folder: Where to record meanwhile.
        problem: Why it cannot be copied to; empty as long as it can.
        number: First number of a segment that is free at the address.

    Raises:
        ImportError: The store's package is missing.
        OSError: The address cannot be reached.
    """

    def __init__(self, address: str) -> None:
        from fsspec.core import url_to_fs

        self._files, self._root = url_to_fs(address)
        numbers = [-1]
        if self._files.exists(self._root):
            found = self._files.find(self._root)
            names = [path.rpartition("/")[2] for path in found]
            numbers += [n for name in names if (n := schema.number_of(name)) is not None]
        self.number = max(numbers) + 1
        self.folder = Path(tempfile.mkdtemp(prefix="gradwatch-"))
        self._sizes: dict[str, int] = {}
        self._thread: threading.Thread | None = None
        self._next = time.monotonic() + PAUSE
        self.problem = ""

    def poll(self) -> None:
        """Copy in the background, if it is time to."""
        if not self.problem and self._thread is None and time.monotonic() >= self._next:
            self._thread = threading.Thread(target=self._background, daemon=True)
            self._thread.start()

    def _background(self) -> None:
        start = time.monotonic()
        self._copy()
        took = time.monotonic() - start
        self._next = time.monotonic() + max(PAUSE, SHARE * took)
        self._thread = None

    def finish(self) -> None:
        """Copy what is left, and remove the temporary folder if all of it has arrived."""
        thread = self._thread
        if thread is not None:
            thread.join()
        if not self.problem:
            self._copy()
        if not self.problem:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _copy(self) -> None:
        try:
            for path in sorted(self.folder.iterdir()):
                size = path.stat().st_size
                if self._sizes.get(path.name) != size:
                    self._files.makedirs(self._root, exist_ok=True)
                    # Read first: a file that grows while it is copied would arrive torn.
                    self._files.pipe_file(f"{self._root}/{path.name}", path.read_bytes()[:size])
                    self._sizes[path.name] = size
        except Exception as error:  # stores raise errors of their own
            self.problem = f"{type(error).__name__}: {error}"


def download(address: str, folder: Path) -> None:
    """Copy the recordings below a remote log directory that have changed.

    Args:
        address: A log directory, like `s3://bucket/logs`.
        folder: Where to; it gets the same folders.

    Raises:
        ImportError: The store's package is missing.
        OSError: The address cannot be read.
    """
    from fsspec.core import url_to_fs

    files, root = url_to_fs(address)
    files.invalidate_cache()
    root = root.rstrip("/")
    for path, about in files.find(root, detail=True).items():
        name = path[len(root) :].lstrip("/")
        if schema.number_of(name.rpartition("/")[2]) is None:
            continue
        target = folder / name
        # A name from there must not lead out of the folder here.
        if os.path.commonpath([os.path.realpath(target), os.path.realpath(folder)]) != str(
            os.path.realpath(folder)
        ):
            continue
        if not target.exists() or target.stat().st_size != about["size"]:
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}")
            part.write_bytes(files.cat_file(path))
            part.replace(target)
