"""Two real gloo processes: the same norms, one decision, one writer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("ddp_script.py")


def run(tmp_path: Path, port: int, *arguments: str) -> tuple[list[dict[str, Any]], str]:
    environment = os.environ | {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, str(tmp_path), *arguments],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
        cwd=SCRIPT.parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    stories = [json.loads((tmp_path / f"rank{r}.json").read_text()) for r in (0, 1)]
    return stories, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "poison", "accumulate", "port"),
    [
        ("ddp", "clean", "1", 29611),
        ("ddp", "poison", "1", 29612),
        ("ddp_spawn", "clean", "2", 29613),
    ],
)
def test_norms_and_decisions_agree_over_ranks(tmp_path, strategy, poison, accumulate, port):
    (first, second), output = run(tmp_path, port, strategy, poison, accumulate)
    for story in (first, second):
        for record in story["actions"]:
            del record["reason"]  # it speaks of the loss, which is each rank's own
    for key in ("steps", "findings", "actions", "weights", "lr"):
        assert json.dumps(first[key]) == json.dumps(second[key]), key
    assert json.dumps(first["norms"]) == json.dumps(second["norms"])
    assert first["loss"] != second["loss"]  # the loss is each rank's own
    assert first["global"] == pytest.approx(first["truth"], rel=1e-5, nan_ok=True)
    assert len(first["steps"]) == 8 // int(accumulate)
    if poison == "poison":
        assert first["findings"] == ["nonfinite"]
        assert [a["action"] for a in first["actions"] if a["step"] == 2] == ["SkipStep", "DecayLR"]
        assert first["lr"] == pytest.approx(0.005)
        assert "that of another rank may be the cause" in output
    recordings = list(tmp_path.rglob("gradwatch"))
    assert len(recordings) == 1
    assert len(list(recordings[0].glob("*.steps.npy"))) == 1
    assert output.count("diagnosis") <= 1


@pytest.mark.slow
def test_a_rescue_that_only_one_rank_has_reason_for_is_that_of_both(tmp_path):
    """The second rank alone sees a NaN, nine in a row, and a loss 1e12 times as large."""
    (first, second), _ = run(tmp_path, 29614, "ddp", "rescue", "1")
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
