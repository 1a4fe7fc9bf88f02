"""Blocks: by the first number in a name, few enough to read, the sick ones first."""

from __future__ import annotations

import pytest

from lightning_gradwatch.finding import Severity
from lightning_gradwatch.report.block import Block
from lightning_gradwatch.report.grouping import choose_rows, group_layers


@pytest.mark.parametrize(
    ("layers", "blocks"),
    [
        ([], []),
        (["(root)"], ["(root)"]),
        ([f"net.{i}" for i in range(0, 20, 2)], [f"net.{i}" for i in range(0, 20, 2)]),
        (
            ["embed", *(f"blocks.{i}.{p}.{j}" for i in range(6) for p in "ab" for j in "01")],
            ["embed", *(f"blocks.{i}" for i in range(6))],
        ),
        (
            ["model.stem", *(f"model.layer{i}.{j}.conv" for i in range(1, 5) for j in (0, 1))],
            ["model.stem", *(f"model.layer{i}.{j}" for i in range(1, 5) for j in (0, 1))],
        ),
        # Four stages say too little: cut at the second number.
        (
            [f"stages.{i}.blocks.{j}.{p}" for i in range(4) for j in range(3) for p in "ab"],
            [f"stages.{i}.blocks.{j}" for i in range(4) for j in range(3)],
        ),
        (["encoder.conv1", "encoder.conv2", "fc"], ["encoder.conv1", "encoder.conv2", "fc"]),
        (["blocks.0.a", "blocks.0.b", "fc"], ["blocks.0.a", "blocks.0.b", "fc"]),
    ],
)
def test_blocks_of_known_shapes_of_models(layers: list[str], blocks: list[str]) -> None:
    groups = group_layers(layers)
    assert list(groups) == blocks
    assert sorted(i for members in groups.values() for i in members) == list(range(len(layers)))


def block(name: str, severity: Severity | None = None) -> Block:
    return Block(name, (name,), 1, 1, 1.0, 1.0, 1.0, 1.0, code="x.y" * (severity is not None),
                 severity=severity)  # fmt: skip


@pytest.mark.parametrize("rows", [1, 2, 7, 30])
def test_rows_never_exceed_the_room_and_keep_their_order(rows: int) -> None:
    blocks = [block(str(i), Severity.ERROR if i % 3 else None) for i in range(100)]
    chosen = choose_rows(blocks, rows)
    assert len(chosen) == rows
    assert [int(b.name) for b in chosen] == sorted({int(b.name) for b in chosen})


def test_a_single_sick_block_among_many_is_shown() -> None:
    blocks = [block(str(i), Severity.WARNING if i == 517 else None) for i in range(1000)]
    names = [b.name for b in choose_rows(blocks, 30)]
    assert "517" in names
    assert (names[0], names[-1]) == ("0", "999")


def test_some_healthy_blocks_stay_for_comparison() -> None:
    blocks = [block(str(i), None if i >= 90 else Severity.ERROR) for i in range(100)]
    chosen = choose_rows(blocks, 30)
    assert sum(not b.sick for b in chosen) == 5
    every_sick = [block(str(i), Severity.ERROR) for i in range(100)]
    assert len(choose_rows(every_sick, 30)) == 30
