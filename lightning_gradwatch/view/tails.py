"""Reading tables and lines that another process is appending to: only what is new, only whole.

Nothing is mapped into memory: a mapped file that is cut off takes the process that reads it down.
"""

from __future__ import annotations

import io
import json
import os
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lightning_gradwatch.recording.tables import Rows

#: Bytes read at once: large enough to be fast, small enough to stay in the processor's cache.
CHUNK = 2**20


class ReplacedError(Exception):
    """A file is not the one that was read before: it is shorter, or another one."""


class _Tail:
    """A file and how far it has been looked at."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen = 0
        self.problem = ""
        self._inode = 0

    def _open(self) -> tuple[io.FileIO, int] | None:
        """Return the file and its size if it holds anything that has not been looked at."""
        try:
            file = io.FileIO(self.path)
        except FileNotFoundError:
            if self.seen:
                raise ReplacedError(self.path.name) from None
            return None
        except OSError as error:
            self.problem = f"{self.path.name}: {error.strerror or error}"
            return None
        about = os.fstat(file.fileno())
        if about.st_size < self.seen or (self._inode and about.st_ino != self._inode):
            file.close()
            raise ReplacedError(self.path.name)
        self._inode = about.st_ino
        if about.st_size == self.seen:
            file.close()
            self.problem = ""
            return None
        return file, about.st_size


class TableTail(_Tail):
    """The whole .npy blocks of a table that grows.

    Args:
        path: The file; it need not exist yet.
        dtype: Type of a row, as the segment's layout demands it.
    """

    def __init__(self, path: Path, dtype: np.dtype[np.void]) -> None:
        super().__init__(path)
        self.dtype = dtype
        self.rows = 0
        self._starts: list[int] = []  # first row of each block
        self._offsets: list[int] = []  # where its rows begin in the file
        empty = io.BytesIO()
        np.lib.format.write_array(empty, np.zeros(0, dtype), allow_pickle=False)
        # Blocks of one table differ in their number of rows only, so most headers need no parser.
        self._head = empty.getvalue().partition(b"'shape': (")[0]

    def scan(self) -> int:
        """Look for new whole blocks; return how many rows they hold.

        Raises:
            ReplacedError: The file has become shorter, or is another one.
        """
        opened = self._open()
        if opened is None:
            return 0
        file, size = opened
        before, self.problem = self.rows, ""
        with file:
            while self.seen < size:
                file.seek(self.seen)
                header = self._header(file.read(len(self._head) + 64), file)
                if header is None:
                    break
                rows, start = header
                stop = start + rows * self.dtype.itemsize
                if stop > size:
                    break
                self._starts.append(self.rows)
                self._offsets.append(start)
                self.rows += rows
                self.seen = stop
        left = size - self.seen
        if left and not self.problem:
            self.problem = (
                f"{self.path.name}: the last {left:,} bytes are an unfinished block; the run was "
                "stopped while writing, or is writing now"
            )
        return self.rows - before

    def _header(self, data: bytes, file: io.FileIO) -> tuple[int, int] | None:
        """Return the rows of the block that begins here and where they begin; None if torn."""
        if data.startswith(self._head):
            digits = data[len(self._head) :].partition(b"'shape': (")[2].partition(b",")[0]
            length = int.from_bytes(data[8:10], "little")
            if digits.isdigit() and len(data) > 10:
                return int(digits), self.seen + 10 + length
        if not data.startswith(b"\x93NUMPY"[: len(data)]):
            self.problem = f"{self.path.name}: what stands at byte {self.seen:,} is no table"
            return None
        file.seek(self.seen)
        try:
            version = np.lib.format.read_magic(file)
            reader = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = reader(file)
        # numpy raises many kinds on a torn header: it is parsed as a Python literal.
        except (ValueError, EOFError, TypeError, SyntaxError, KeyError, MemoryError, OverflowError):
            return None
        if dtype != self.dtype or len(shape) != 1:
            self.problem = f"{self.path.name}: the block at byte {self.seen:,} has other fields"
            return None
        return int(shape[0]), file.tell()

    def read(self, start: int, stop: int) -> Iterator[Rows]:
        """Yield rows `start` to `stop` (not included), a few megabytes at a time.

        Raises:
            ReplacedError: They are not there any more.
        """
        if stop <= start:
            return
        most = max(1, CHUNK // self.dtype.itemsize)
        with self.path.open("rb", buffering=0) as file:
            pieces: list[Rows] = []
            gathered = 0
            block = bisect_right(self._starts, start) - 1
            while start < stop:
                end = self._starts[block + 1] if block + 1 < len(self._starts) else self.rows
                count = min(end, stop, start + most - gathered) - start
                offset = self._offsets[block]
                file.seek(offset + (start - self._starts[block]) * self.dtype.itemsize)
                rows = np.empty(count, self.dtype)
                if file.readinto(rows.view(np.uint8).data) != rows.nbytes:
                    raise ReplacedError(self.path.name)
                pieces.append(rows)
                gathered += count
                start += count
                block += start == end
                if gathered >= most or start == stop:
                    yield pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
                    pieces, gathered = [], 0


class LineTail(_Tail):
    """The whole lines of a file of JSON objects that grows."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._broken = 0

    def scan(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield each new line's place in the file and what it holds.

        Raises:
            ReplacedError: The file has become shorter, or is another one.
        """
        opened = self._open()
        if opened is None:
            return
        file, size = opened
        with io.BufferedReader(file) as lines:
            lines.seek(self.seen)
            while self.seen < size:
                line = lines.readline()
                if not line.endswith(b"\n"):
                    break
                place = self.seen
                self.seen += len(line)
                entry = parse_line(line)
                if entry is None:
                    self._broken += 1
                else:
                    yield place, entry
        left = size - self.seen
        self.problem = ""
        if left > 0:
            self.problem = (
                f"{self.path.name}: the last {left:,} bytes are an unfinished line; the run was "
                "stopped while writing, or is writing now"
            )
        elif self._broken:
            self.problem = f"{self.path.name}: {self._broken:,} of its lines cannot be read"

    def read(self, place: int) -> dict[str, Any] | None:
        """Return the line at a place, or None if it is not there any more."""
        try:
            with self.path.open("rb") as file:
                file.seek(place)
                return parse_line(file.readline())
        except OSError:
            return None


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object of a line; None if it holds none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
