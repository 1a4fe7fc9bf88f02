"""Files that grow, end in the middle, shrink, or are no such files at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lightning_gradwatch.recording import RecordingWriter, schema
from lightning_gradwatch.recording.tables import Rows, read_table
from lightning_gradwatch.testing import make_sample
from lightning_gradwatch.view.tails import LineTail, ReplacedError, TableTail

DTYPE = schema.steps_dtype(2)


@pytest.fixture
def table(tmp_path: Path) -> bytes:
    """Three blocks of two, two and one rows."""
    writer = RecordingWriter(tmp_path / "whole", buffer_rows=2)
    for step in range(5):
        writer.add(make_sample(step, [float("nan"), 2.0]))
    writer.close()
    return (tmp_path / "whole" / schema.STEPS.format(0)).read_bytes()


def everything(tail: TableTail) -> Rows:
    parts = [*tail.read(0, tail.rows)]
    return np.concatenate(parts) if parts else np.zeros(0, tail.dtype)


def test_grows_byte_by_byte(table: bytes, tmp_path: Path):
    path = tmp_path / "steps.npy"
    tail = TableTail(path, DTYPE)
    assert tail.scan() == 0
    rows = 0
    with path.open("wb", buffering=0) as file:
        for i, byte in enumerate(table):
            file.write(bytes([byte]))
            # Every byte matters near the ends of blocks; in between, every 17th will do.
            if i % 17 and len(table) - i > 40:
                continue
            rows += tail.scan()
            whole, _ = read_table(path, DTYPE)
            assert rows == tail.rows == len(whole)
    assert everything(tail)["step"].tolist() == [0, 1, 2, 3, 4]
    assert tail.problem == ""


def test_torn_at_every_byte(table: bytes, tmp_path: Path):
    path = tmp_path / "steps.npy"
    last = table.rindex(b"\x93NUMPY")
    for cut in (*range(0, last, 29), *range(last - 3, len(table))):
        path.write_bytes(table[:cut])
        tail = TableTail(path, DTYPE)
        tail.scan()
        assert everything(tail)["step"].tolist() == read_table(path, DTYPE)[0]["step"].tolist()
        assert ("unfinished" in tail.problem) == (read_table(path, DTYPE)[1] != "")


@pytest.mark.parametrize("cut", [0, 10, 700])
def test_shorter_than_before(table: bytes, tmp_path: Path, cut: int):
    path = tmp_path / "steps.npy"
    path.write_bytes(table)
    tail = TableTail(path, DTYPE)
    tail.scan()
    path.write_bytes(table[:cut])
    with pytest.raises(ReplacedError):
        tail.scan()
    with pytest.raises(ReplacedError):
        [*tail.read(0, 5)]
    path.unlink()
    with pytest.raises(ReplacedError):
        tail.scan()


def test_any_part_can_be_read(table: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "steps.npy"
    path.write_bytes(table)
    for chunk in (1, DTYPE.itemsize, 3 * DTYPE.itemsize, 10**6):
        monkeypatch.setattr("lightning_gradwatch.view.tails.CHUNK", chunk)
        tail = TableTail(path, DTYPE)
        tail.scan()
        for start in range(6):
            for stop in range(start, 6):
                found = [row for rows in tail.read(start, stop) for row in rows["step"].tolist()]
                assert found == list(range(start, stop))


def test_other_fields_and_garbage(tmp_path: Path, table: bytes):
    path = tmp_path / "steps.npy"
    for data in (b"\x00" * 500, b"\x93NUMPY\x01\x00\xff\xff{", table[:9] + b"\xff" + table[10:]):
        path.write_bytes(data)
        tail = TableTail(path, DTYPE)
        assert tail.scan() == 0
        assert "steps.npy" in tail.problem
    path.write_bytes(table)
    other = TableTail(path, schema.steps_dtype(3))
    assert other.scan() == 0
    assert "other fields" in other.problem


def test_lines_grow_and_some_are_broken(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    tail = LineTail(path)
    assert [*tail.scan()] == []
    path.write_text('{"a": 1}\n{"b"')
    assert [entry for _, entry in tail.scan()] == [{"a": 1}]
    assert "unfinished line" in tail.problem
    with path.open("a") as file:
        file.write(': 2}\nnot json\n[1]\n{"c": 3}\n')
    places = [*tail.scan()]
    assert [entry for _, entry in places] == [{"b": 2}, {"c": 3}]
    assert "2 of its lines" in tail.problem
    assert tail.read(places[0][0]) == {"b": 2}
    path.unlink()
    assert tail.read(0) is None


def test_a_directory_in_place_of_a_file(tmp_path: Path):
    (tmp_path / "steps.npy").mkdir()
    tail = TableTail(tmp_path / "steps.npy", DTYPE)
    assert tail.scan() == 0
    assert "steps.npy" in tail.problem
