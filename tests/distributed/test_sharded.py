"""FSDP2 and tensor parallel on gloo: norms as those of one process, and no rank waits."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.distributed.session import play

pytestmark = pytest.mark.slow

Stories = dict[str, list[dict[str, Any]]]

#: Parameters of the network, and numbers in the vector: power and presence of each, failures.
COUNT = 8
WHOLE = 2 * COUNT + 1


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Stories:
    return play("tests.distributed.sharded_scenarios", 2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Stories:
    return play("tests.distributed.mesh_scenarios", 4, tmp_path_factory.mktemp("four"))


def assert_as_in_one_process(ranks: list[dict[str, Any]], steps: int = 6) -> None:
    first = ranks[0]
    truth = first["truth"]
    assert first["steps"] == list(range(steps))
    for rank in ranks:
        assert rank["norms"] == [pytest.approx(row, rel=1e-6) for row in truth["norms"]]
        assert rank["global"] == pytest.approx(truth["global"], rel=1e-6)
        assert rank["clipped"] == pytest.approx(truth["clipped"], rel=1e-6)
        for key in ("norms", "has", "global", "clipped", "findings", "actions"):
            assert json.dumps(rank[key]) == json.dumps(first[key]), key


@pytest.mark.parametrize("kind", ["fsdp", "fsdp-ours", "tensor", "tensor-ours"])
def test_norms_equal_those_of_one_process_by_one_reduction(two: Stories, kind: str) -> None:
    assert_as_in_one_process(two[kind])
    # Tensor parallel: four of the parameters are spread, and no more is communicated.
    size = WHOLE if kind.startswith("fsdp") else 7
    acting = [13] if kind.endswith("ours") else []
    for rank in two[kind]:
        assert [n for n in rank["reductions"] if n not in acting] == [size] * 6


@pytest.mark.parametrize("kind", ["fsdp-validated", "one-validated"])
def test_validation_that_leaves_parameters_gathered(two: Stories, kind: str) -> None:
    """Before the first step and in between: FSDP2 puts other parameters in place meanwhile."""
    assert_as_in_one_process(two[kind])
    for rank in two[kind]:
        assert rank["left_out"] == rank["findings"] == rank["said"] == []


def test_a_norm_that_others_clip_is_read_again_after_the_step(two: Stories) -> None:
    assert_as_in_one_process(two["fsdp-trainer"])
    assert max(two["fsdp-trainer"][0]["clipped"]) == pytest.approx(0.3, rel=1e-6)
    assert two["fsdp-trainer"][0]["reductions"] == [WHOLE] * 12


def test_maximum_norm(two: Stories) -> None:
    for rank in two["fsdp-largest"]:
        assert rank["norms"][0] == pytest.approx(rank["first"], rel=1e-6)


def test_sums_still_to_be_made_are_read_and_left_to_training(two: Stories) -> None:
    ranks = two["sequence"]
    assert_as_in_one_process(ranks)
    assert any("Partial" in kind for kind in ranks[0]["kinds"])  # or it would prove nothing
    for rank in ranks:
        assert rank["weights"] == rank["unwatched"]


def test_flow_of_split_layers_is_not_shown_as_that_of_the_whole(two: Stories) -> None:
    for kind in ("tensor", "sequence"):
        for rank in two[kind]:
            assert sum("tensor parallel" in said for said in rank["said"]) == 1
            assert rank["flow"] == []
    assert len(two["fsdp"][0]["flow"]) == 6
    assert two["fsdp"][0]["said"] == []


def test_gradients_that_some_or_all_ranks_lack(two: Stories) -> None:
    for rank in two["unused"]:
        norms, has = np.array(rank["norms"]), np.array(rank["has"])
        assert rank["reductions"] == [WHOLE] * 12
        assert has[:, :7].all()
        assert has[:, 7].tolist() == [True, True, False, True, True, True]
        assert np.isnan(norms[2, 7])
        # Half of the rows are there in the steps in which one of two processes has them.
        assert 0 < norms[1, 0] < two["fsdp"][0]["norms"][1][0]
    assert json.dumps(two["unused"][0]["norms"]) == json.dumps(two["unused"][1]["norms"])


@pytest.mark.parametrize("where", ["before", "within", "after", "later", "acting"])
def test_a_rank_that_fails_keeps_nobody_waiting(two: Stories, where: str) -> None:
    first, second = two[f"failing-{where}"]
    assert "ArithmeticError: sabotage" in "".join(second["said"])
    assert "OtherRankFailed" in "".join(first["said"])
    assert len(first["said"]) == len(second["said"]) == 1
    assert len(first["reductions"]) == len(second["reductions"])
    assert first["weights"] == second["weights"]
    assert 2 <= len(first["steps"]) <= 3
    assert np.isfinite(first["global"]).all()
    assert first["global"][:2] == second["global"][:2]


def test_training_goes_on_as_without_us_after_a_failure(two: Stories) -> None:
    wanted = two["fsdp"][0]["truth"]["weights"]
    for where in ("before", "within", "after", "later"):
        got = two[f"failing-{where}"][0]["weights"]
        for ours, theirs in zip(got, wanted, strict=True):
            assert np.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_two_dimensions_of_a_mesh_take_one_reduction_each(four: Stories) -> None:
    assert_as_in_one_process(four["two-dimensions"])
    for rank in four["two-dimensions"]:
        assert [n for n in rank["reductions"] if n != 12] == [WHOLE, 7] * 6


def test_replicas_are_not_summed(four: Stories) -> None:
    assert_as_in_one_process(four["replicas"])


def test_more_processes_than_rows(four: Stories) -> None:
    assert_as_in_one_process(four["empty"])
