"""Two real gloo processes of which one alone has a reason for a rescue: both are rescued."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def stories(tmp_path: Path, script: str, port: int, *arguments: str) -> list[dict[str, Any]]:
    """Run a script and return what each rank has written down."""
    place = tmp_path / "-".join(arguments)
    place.mkdir()
    path = (Path(__file__).parent / script).resolve()
    environment = os.environ | {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, path, str(place), *arguments],
        env=environment, capture_output=True, text=True, timeout=480, check=False,
        cwd=path.parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "switched off" not in done.stderr
    return [json.loads(path.read_text()) for path in sorted(place.glob("*.json"))]


@pytest.mark.slow
def test_a_rescue_that_only_one_rank_has_reason_for_is_that_of_both(tmp_path):
    """The second rank alone sees a NaN, nine in a row, and a loss 1e12 times as large."""
    first, second = stories(tmp_path, "rescue_ddp_script.py", 29614, "ddp", "rescue", "1")
    told = [[(a["action"], a["step"], a["before"], a["after"]) for a in s["actions"]]
            for s in (first, second)]  # fmt: skip
    assert json.dumps(told[0]) == json.dumps(told[1])
    assert first["weights"] == second["weights"]
    assert first["lr"] == second["lr"]
    skipped = [a["step"] for a in first["actions"] if a["action"] == "SkipStep"]
    assert skipped == [8, *range(20, 29)]
    # The seventh in a row, and two more because it had got over a single one before.
    assert [a["step"] for a in first["actions"] if a["action"] == "Rollback"] == [28]
    assert ("ZClip", 40) in [(a["action"], a["step"]) for a in first["actions"]]
    assert len(first["steps"]) == 60
    assert max(first["loss"][-10:]) < 0.5 * first["loss"][0]


@pytest.mark.slow
def test_a_rollback_puts_every_shard_back(tmp_path):
    """Found by one rank alone; as in one process, moments included."""
    [single] = stories(tmp_path, "rescue_fsdp_script.py", 29624, "plain", "rollback")
    ranks = stories(tmp_path, "rescue_fsdp_script.py", 29625, "fsdp", "rollback")
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
