"""DDP on two real gloo processes: the same norms, one decision, one writer."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.session import play

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("spawn_script.py")

Stories = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Stories:
    return play("tests.distributed.ddp_scenarios", 2, tmp_path_factory.mktemp("ddp"))


def same(ranks: list[dict[str, Any]], *keys: str) -> None:
    """Assert that all ranks say so, bit for bit."""
    for rank in ranks[1:]:
        for key in keys:
            assert json.dumps(rank[key]) == json.dumps(ranks[0][key]), key


NUMBERS = ("steps", "norms", "has", "global", "clipped", "weights", "lr", "global_step", "actions")


@pytest.mark.parametrize("kind", ["plain", "accumulated", "bucket-view", "static"])
def test_norms_are_those_of_one_process_and_training_that_of_none(
    stories: Stories, kind: str
) -> None:
    ranks = stories[kind]
    same(ranks, *NUMBERS, "findings")
    truth = ranks[0]["truth"]
    assert ranks[0]["norms"] == [pytest.approx(row, rel=1e-6) for row in truth["norms"]]
    assert ranks[0]["global"] == pytest.approx(truth["global"], rel=1e-6)
    assert ranks[0]["weights"] == ranks[0]["unwatched"]
    assert ranks[0]["added"] == 0  # without actions nothing is communicated for us
    assert ranks[0]["loss"] != ranks[1]["loss"]  # each rank has its own


def test_flow_is_each_rank_s_own_and_the_run_says_so(stories: Stories) -> None:
    first, second = stories["plain"]
    assert len(first["flow"]) == len(second["flow"]) == 6
    assert first["flow"] != second["flow"]
    for rank in (first, second):
        assert rank["environment"]["ranks"].startswith(
            "2 (loss and flow through modules: of rank 0"
        )


def test_one_rank_writes(stories: Stories) -> None:
    same(stories["recorded"], *NUMBERS)
    files = stories["recorded"][0]["files"]
    assert sum(f.endswith(".steps.npy") for f in files) == 1
    assert sum("tfevents" in f for f in files) == 1


def test_nan_on_one_rank_is_one_decision(stories: Stories) -> None:
    ranks = stories["poisoned"]
    same(ranks, *[key for key in NUMBERS if key != "actions"], "findings")
    for rank in ranks:
        assert rank["findings"] == ["nonfinite"]
        acted = [(name, step) for name, step, *_ in rank["actions"] if step == 2]
        assert acted == [("SkipStep", 2), ("DecayLR", 2)]
        assert np.isnan(rank["norms"][2]).all()
        assert np.isnan(rank["clipped"][2])
        assert np.isfinite(rank["weights"][0]).all()
        assert rank["lr"] == pytest.approx(0.05)
    assert "that of another rank may be the cause" in ranks[0]["sentences"][0]
    assert np.isnan(ranks[1]["loss"][2])
    assert np.isfinite(ranks[0]["loss"]).all()


def test_parameters_used_on_one_rank_or_on_none(stories: Stories) -> None:
    ranks = stories["unused"]
    same(ranks, *NUMBERS)
    first = ranks[0]
    has = dict(zip(first["parameters"], np.array(first["has"]).T, strict=True))
    assert has["sometimes.weight"][1::2].all()
    assert not has["never.weight"].any()
    assert has["net.0.weight"].all()
    assert first["weights"] == first["unwatched"]


def test_buckets_that_gradients_view_survive_skipping_and_clipping(stories: Stories) -> None:
    ranks = stories["bucket-view-actions"]
    same(ranks, *NUMBERS)
    assert max(n for n in ranks[0]["clipped"] if not np.isnan(n)) == pytest.approx(0.5, rel=1e-6)
    for ours, theirs in zip(ranks[0]["weights"], ranks[0]["plain"], strict=True):
        assert np.allclose(ours, theirs, rtol=1e-12)


def test_what_fails_on_one_rank_is_switched_off_on_all(stories: Stories) -> None:
    for kind, name in (("failing-action", "Fails"), ("failing-probe", "Probe")):
        ranks = stories[kind]
        same(ranks, "weights", "lr", "global_step", "actions")
        assert f"{name} failed with OtherRankFailed" in "".join(ranks[0]["said"])
        assert f"{name} failed with ArithmeticError: sabotage" in "".join(ranks[1]["said"])
        assert ranks[0]["global_step"] == 6
    # The other action goes on; without a reading none does.
    assert [step for _, step, *_ in stories["failing-action"][0]["actions"]] == [*range(6)]
    assert [step for _, step, *_ in stories["failing-probe"][0]["actions"]] == [0, 1]


@pytest.mark.parametrize("kind", ["bare", "fabric"])
def test_loops_of_one_s_own_have_the_figures_of_the_callback(stories: Stories, kind: str) -> None:
    ranks = stories[kind]
    same(ranks, "norms", "global", "clipped", "weights", "actions")
    ours, theirs = ranks[0], ranks[0]["lightning"]
    assert ours["parameters"] == [name.removeprefix("net.") for name in theirs["parameters"]]
    for key in ("steps", "norms", "has", "global", "clipped", "weights"):
        assert json.dumps(ours[key]) == json.dumps(theirs[key]), key


def test_rank_zero_reports_from_a_bare_loop(stories: Stories) -> None:
    first, second = stories["bare"]
    assert first["environment"]["ranks"] == first["lightning"]["environment"]["ranks"]
    assert first["heard"] > 0
    assert second["heard"] == 0


# ---------------------------------------------------------------------- Lightning's own launchers


def test_ddp_spawn(tmp_path):
    """Everything is pickled on its way. What `ddp` launches: tests/examples/test_loops.py."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    done = subprocess.run(
        [sys.executable, SCRIPT, str(tmp_path)],
        env=os.environ | {"MASTER_PORT": port, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=240, check=False, cwd=SCRIPT.parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank{r}.json").read_text()) for r in (0, 1)]
    same(ranks, "steps", "findings", "actions", "weights", "lr", "norms")
    first, second = ranks
    assert first["loss"] != second["loss"]
    assert first["global"] == pytest.approx(first["truth"], rel=1e-5)
    assert len(first["steps"]) == 4
    assert [record["action"] for record in first["actions"]] == ["ClipGradNorm"] * 4
    recordings = list(tmp_path.rglob("gradwatch"))
    assert len(recordings) == 1
    assert len(list(recordings[0].glob("*.steps.npy"))) == 1
    assert (done.stdout + done.stderr).count("diagnosis") <= 1
