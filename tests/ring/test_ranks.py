"""Sharded over two gloo processes, with numbers that come late, and later on one of them."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl

from tests.distributed.test_rescue import stories


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(pl.strategies, "ModelParallelStrategy"),
    reason="ModelParallelStrategy came with Lightning 2.4; the current release runs this",
)
@pytest.mark.parametrize(
    ("kind", "clip", "port"), [("fsdp", "ours", 29631), ("tensor", "ours", 29632)]
)
def test_late_norms_equal_those_of_one_process(tmp_path, kind, clip, port):
    [single] = stories(tmp_path, "rescue_fsdp_script.py", port, "plain", clip)
    ranks = stories(tmp_path, "../ring/ranks_script.py", port, kind, clip)
    assert len(ranks) == 2
    for rank in ranks:
        for key in ("norms", "global", "clipped"):
            flat = [v for row in single[key] for v in (row if isinstance(row, list) else [row])]
            got = [v for row in rank[key] for v in (row if isinstance(row, list) else [row])]
            assert got == pytest.approx(flat, rel=1e-5, abs=1e-7), key
    assert max(single["clipped"]) == pytest.approx(0.3, rel=1e-4)
