"""FSDP2 and tensor parallel on two gloo processes: norms of whole tensors, as in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("fsdp_script.py")


def story(tmp_path: Path, port: int, kind: str, clip: str) -> list[dict[str, Any]]:
    environment = os.environ | {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, str(tmp_path), kind, clip],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
        cwd=SCRIPT.parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "switched off" not in done.stderr
    return [json.loads(p.read_text()) for p in sorted(tmp_path.glob(f"{kind}-{clip}-*.json"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "clip", "port"),
    [("fsdp", "trainer", 29621), ("fsdp", "ours", 29622), ("tensor", "ours", 29623)],
)
def test_norms_equal_those_of_one_process(tmp_path, kind, clip, port):
    (single,) = story(tmp_path, port, "plain", clip)
    ranks = story(tmp_path, port, kind, clip)
    assert len(ranks) == 2
    for rank in ranks:
        assert rank["parameters"] == single["parameters"]
        for key in ("norms", "global", "clipped"):
            flat = [v for row in single[key] for v in (row if isinstance(row, list) else [row])]
            got = [v for row in rank[key] for v in (row if isinstance(row, list) else [row])]
            assert got == pytest.approx(flat, rel=1e-5, abs=1e-7), key
        assert rank["healthy"]
    limit = {"ours": 0.3, "trainer": 0.2}[clip]
    assert max(single["clipped"]) == pytest.approx(limit, rel=1e-4)


@pytest.mark.slow
def test_a_rollback_puts_every_shard_back(tmp_path):
    """Found by one rank alone; as in one process, moments included."""
    (single,) = story(tmp_path, 29624, "plain", "rollback")
    ranks = story(tmp_path, 29625, "fsdp", "rollback")
    assert len(ranks) == 2
    for rank in (single, *ranks):
        [(action, step, reason)] = rank["actions"]
        assert (action, step) == ("Rollback", 20)
        assert reason.endswith("back to the state of step 0")
        assert rank["lr"] == pytest.approx(0.005)
        # The weights before step 21 are those before the first; the moments are none again.
        assert rank["weights"][21] == rank["weights"][0]
        assert rank["weights"][20] != rank["weights"][0]
    for ours, plain in zip(ranks[0]["weights"], single["weights"], strict=True):
        flat = [v for part in plain for v in part]
        assert [v for part in ours for v in part] == pytest.approx(flat, rel=1e-4, abs=1e-6)
    assert ranks[0]["weights"] == ranks[1]["weights"]
