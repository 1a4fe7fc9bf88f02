"""Append-only tables: one file of concatenated .npy blocks, written whole and read torn."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

#: Rows buffered before a block is written, and the memory that bounds them for large models.
ROWS = 256
MAX_BYTES = 8 * 2**20

Rows = npt.NDArray[np.void]


class TableWriter:
    """Collects rows of a structured type and appends them to a file as .npy blocks.

    The file appears with the first block. Each block goes out in one write, so that a process that
    is killed loses no more than the rows since the last one.

    Args:
        path: The file; it must not exist yet.
        dtype: Type of a row.
        rows: Rows of a full block.
    """

    def __init__(self, path: Path, dtype: np.dtype[np.void], rows: int = ROWS) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self._buffer = np.zeros(max(1, min(rows, MAX_BYTES // dtype.itemsize)), dtype)
        self._used = 0
        # Looking a field up by name for each row costs more than filling it.
        self._columns = {name: self._buffer[name] for name in dtype.names or ()}

    @property
    def full(self) -> bool:
        """Whether the buffer has no room for another row."""
        return self._used == len(self._buffer)

    @property
    def waiting(self) -> int:
        """Rows not written yet."""
        return self._used

    def add(self, **values: Any) -> None:
        """Add a row; every field must be given. Flush first when `full`."""
        row, columns = self._used, self._columns
        for name, value in values.items():
            columns[name][row] = value
        self._used = row + 1

    def flush(self) -> None:
        """Write the waiting rows as one block.

        Raises:
            OSError: The file cannot be written; the rows are given up, so as not to pile up.
        """
        if not self._used:
            return
        block = io.BytesIO()
        np.lib.format.write_array(block, self._buffer[: self._used], allow_pickle=False)
        self._used = 0
        if self._file is None:
            self._file = io.FileIO(self._path, "x")
        write_all(self._file, block.getvalue())

    def close(self) -> None:
        """Write what is waiting and close the file."""
        try:
            self.flush()
        finally:
            if self._file is not None:
                self._file.close()
                self._file = None

    def abandon(self) -> None:
        """Close the file and give up what is waiting."""
        self._used = 0
        self.close()


def write_all(file: io.FileIO, data: bytes) -> None:
    """Write all of `data`: one call to the system, more only if it takes less."""
    view = memoryview(data)
    while len(view):
        view = view[file.write(view) or 0 :]


def read_table(path: Path, dtype: np.dtype[np.void]) -> tuple[Rows, str]:
    """Read every whole block of a table.

    Args:
        path: The file; it need not exist.
        dtype: Type of a row, as the segment's layout demands it.

    Returns:
        The rows, and a sentence on what could not be read; empty if all could.
    """
    blocks: list[Rows] = []
    problem = ""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            while (start := file.tell()) < size:
                block = _read_block(file)
                if block is None:
                    problem = (
                        f"{path.name}: the last {size - start:,} bytes are an unfinished block; "
                        "the run was stopped while writing, or is writing now"
                    )
                    break
                if block.dtype != dtype:
                    problem = f"{path.name}: the block at byte {start:,} has other fields"
                    break
                blocks.append(block)
    except FileNotFoundError:
        pass
    except OSError as error:
        problem = f"{path.name}: {error.strerror or error}"
    return (np.concatenate(blocks) if blocks else np.zeros(0, dtype)), problem


def _read_block(file: io.BufferedReader) -> Rows | None:
    """Read one block, or return None if it is torn."""
    try:
        block = np.lib.format.read_array(file, allow_pickle=False)
    # numpy raises many kinds on a torn header: it is parsed as a Python literal.
    except (ValueError, EOFError, TypeError, SyntaxError, KeyError, MemoryError, OverflowError):
        return None
    return block if block.ndim == 1 else None
