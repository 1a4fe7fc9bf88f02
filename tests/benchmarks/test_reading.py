"""The benchmark of reading: every method reads what it says, and the table adds up."""

from __future__ import annotations

import pytest
import torch

from benchmarks import reading
from lightning_gradwatch import native


class Walk:
    """Stands for the compiled walk, which takes half a minute to build."""

    def __init__(self) -> None:
        self.held: list[torch.Tensor] = []
        self.walks = 0

    def hold(self, parameters: list[torch.Tensor]) -> None:
        self.held = list(parameters)

    def walk(self) -> int:
        self.walks += 1
        return len(self.held)


@pytest.mark.skipif(native.compiled is None, reason="the compiled reader was not built")
def test_methods_agree_and_are_all_in_the_table(monkeypatch):
    walk, ticks = Walk(), []
    bench = reading.Bench(reading.build("mlp"), walk)
    bench.backward()
    with torch.no_grad():
        ours = bench._norms(True)[0]
        assert ours == pytest.approx(bench._norms(False)[0], rel=1e-5)
        total = bench.methods()["`get_total_norm` (one number)"]()
        assert total == pytest.approx(float((ours**2).sum() ** 0.5), rel=1e-5)
        bench._clip(0.5, True)
        assert float((bench._norms(True)[0] ** 2).sum() ** 0.5) == pytest.approx(0.5, rel=1e-5)
        bench._clip(1e9, True)
        assert float((bench._norms(True)[0] ** 2).sum() ** 0.5) == pytest.approx(0.5, rel=1e-5)
    rows = reading.measure("mlp", 2, walk, lambda: ticks.append(1))
    assert [len(row.times) for row in rows] == [2] * 10
    assert min(min(row.times) for row in rows) > 0
    assert (walk.walks, len(walk.held), len(ticks)) == (3, 0, 30)
    assert native.compiled is not None
    heads, lines = reading.table({"mlp": rows})
    assert len(heads) == 2
    assert [line[0] for line in lines[1:]] == [row.name for row in rows[2:]]
    bound = rows[0].median + rows[1].median
    assert f"({rows[2].median / bound:.2f}x)" in lines[1][1]
