"""What the page is told: the contract of frontend/API.md, for good questions and for bad ones."""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.history import History
from lightning_gradwatch.recording import RecordingWriter
from lightning_gradwatch.testing import make_flow, make_sample
from lightning_gradwatch.view import answers
from lightning_gradwatch.view.acted import ActionLog, spans
from lightning_gradwatch.view.embedded import as_script, embed
from lightning_gradwatch.view.live import from_history
from lightning_gradwatch.view.message import decode
from lightning_gradwatch.view.run import RecordedRun

STEPS, SPIKE, BROKEN = 3000, 1234, 2000


def sample(t: int):
    """Three layers; the second has a spike, the third a NaN."""
    rng = np.random.default_rng(t)
    norms = (10.0 ** rng.normal([-2.0, -1.0, 0.0], 0.1)).tolist()
    if t == SPIKE:
        norms[1] = 1e5
    if t == BROKEN:
        norms[2] = math.nan
    flow = make_flow(norms, time_profiles={"rnn": [1.0, 0.1]}) if t % 50 == 0 else None
    weights = [5.0, 5.0, 5.0] if t % 50 == 0 else None
    return make_sample(t, norms, loss=2.0 - t / STEPS, lr=0.1, weight_norm=weights, flow=flow)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    folder = tmp_path_factory.mktemp("logs") / "version_0" / "gradwatch"
    writer = RecordingWriter(folder, config={"every_n_steps": 1}, environment={"torch": "x"})
    for t in range(STEPS):
        writer.add(sample(t))
        if t % 10 == 0:
            writer.action(ActionRecord("ClipGradNorm", t, "too long", 2.0, 1.0))
    writer.close(
        [
            Finding("spike", Severity.INFO, ("layer1",), SPIKE, SPIKE, summary="a </script> spike"),
            Finding("nonfinite", Severity.ERROR, ("layer2",), BROKEN, BROKEN, remedies=("Sleep",)),
        ]
    )
    run = RecordedRun(folder)
    run.refresh(None)
    return run


def test_about_a_run(run: RecordedRun):
    about = answers.describe(run, "version_0")
    assert (about["steps"], about["first_step"], about["last_step"]) == (STEPS, 0, STEPS - 1)
    assert about["verdict"] == "NaN or Inf"
    assert not about["healthy"]
    assert about["scope"].endswith("3 parameters in 3 layers · loss 2 → 1")
    assert [finding["code"] for finding in about["findings"]] == ["nonfinite", "spike"]
    assert about["findings"][0]["remedies"] == ["Sleep."]
    assert about["findings"][0]["where"] == "step 2,000 · layer2"
    assert [layer["findings"] for layer in about["layers"]] == [[], [1], [0]]
    assert [layer["weight_norm"] for layer in about["layers"]] == [5.0] * 3
    assert about["layers"][1]["max"] == 1e5
    assert about["layers"][1]["median"] == pytest.approx(0.1, rel=0.05)
    assert about["layers"][1]["low"] < about["layers"][1]["median"] < about["layers"][1]["high"]
    (clip,) = about["actions"]
    assert (clip["count"], clip["text"][:24]) == (300, "ClipGradNorm 300 times, ")
    assert len(clip["spans"]) <= 256
    assert sum(count for _, _, count in clip["spans"]) == 300
    names = [series["name"] for series in about["series"]]
    assert names == [
        "grad_norm", "strips", "update_ratio", "weight_norm", "time_profile:rnn", "flow",
    ]  # fmt: skip
    assert about["config"] == {"every_n_steps": 1}
    json.dumps(about, allow_nan=False)


@pytest.mark.parametrize("most", [1, 7, 100, 1000, 8192])
def test_a_spike_and_a_nan_are_in_every_map(run: RecordedRun, most: int):
    header, planes = decode(answers.bins(run, "version_0", most=most))
    assert header["shape"] == [3, len(header["first"])]
    assert len(header["first"]) <= most
    assert header["width"] & (header["width"] - 1) == 0
    where = header["first"].index(SPIKE // header["width"] * header["width"])
    assert planes[0, 1, where] == np.float32(1e5)
    assert np.isnan(planes[0, 2, BROKEN // header["width"]])
    assert sum(header["columns"]) == STEPS


def test_a_window_a_row_and_every_stat(run: RecordedRun):
    stats = ["min", "mean", "max", "nonfinite", "extreme"]
    message = answers.bins(run, "x", start=1200, stop=1300, most=10, stats=stats, rows=[1])
    header, planes = decode(message)
    assert (header["rows"], header["stats"]) == ([1], stats)
    assert header["first"][0] <= 1200
    assert header["last"][-1] >= 1300
    assert planes.shape == (5, 1, len(header["first"]))
    assert (planes[0] <= planes[1]).all()
    assert (planes[1] <= planes[2]).all()
    assert planes[2].max() == np.float32(1e5)
    assert not planes[3].any()
    empty, _ = decode(answers.bins(run, "x", start=10**9))
    assert empty["shape"] == [3, 0]


def test_strips_have_losses_on_a_plain_scale(run: RecordedRun):
    header, planes = decode(answers.bins(run, "x", "strips", stats=["max"], most=100))
    about = next(s for s in answers.describe(run, "x")["series"] if s["name"] == "strips")
    rows = {row["name"]: i for i, row in enumerate(about["rows"])}
    assert [row["log"] for row in about["rows"]] == [True, True, False, True]
    assert planes[0, rows["loss"], 0] == pytest.approx(2.0)
    assert planes[0, rows["lr"], 0] == np.float32(0.1)
    clipped = planes[0, rows["clipped_norm"]]  # nobody told; after a NaN it is known to be one
    assert np.isnan(clipped[BROKEN // header["width"]])
    assert (np.delete(clipped, BROKEN // header["width"]) == -np.inf).all()
    assert header["series"] == "strips"


def test_the_exact_step(run: RecordedRun):
    step = answers.at_step(run, "x", SPIKE, layer=1)
    assert (step["step"], step["exact"], step["epoch"]) == (SPIKE, True, 0)
    assert step["series"]["grad_norm"]["values"][1] == 1e5
    assert step["series"]["flow"]["step"] == 1200
    assert step["loss"] == 2.0 - SPIKE / STEPS
    assert step["clipped_norm"] is None
    assert step["parameters"] == [
        {"name": "layer1.weight", "grad_norm": 1e5, "shape_ndim": 2, "elements": 100}
    ]
    assert answers.at_step(run, "x", 1230)["actions"] == [
        {"action": "ClipGradNorm", "step": 1230, "reason": "too long", "before": 2.0, "after": 1.0}
    ]
    broken = answers.at_step(run, "x", BROKEN)
    assert broken["series"]["grad_norm"]["values"][2] == "NaN"
    assert broken["global_norm"] == "NaN"
    assert answers.at_step(run, "x", -5)["step"] == 0
    assert answers.at_step(run, "x", 10**12)["step"] == STEPS - 1


def test_bad_questions(run: RecordedRun):
    for wrong in ({"most": 0}, {"most": 10**6}, {"stats": ["median"]}, {"stats": []},
                  {"rows": [3]}, {"rows": [-1]}):  # fmt: skip
        with pytest.raises(answers.QuestionError):
            answers.bins(run, "x", **wrong)  # type: ignore[arg-type]
    with pytest.raises(answers.UnknownError, match=r"'nope'.*grad_norm, strips"):
        answers.bins(run, "x", "nope")
    with pytest.raises(answers.QuestionError, match="0 to 2, got 3"):
        answers.at_step(run, "x", 0, layer=3)


def test_spans_lose_no_step():
    assert spans([], 3) == []
    assert spans([5], 3) == [[5, 5, 1]]
    assert spans([9, 1, 2, 3, 3], 5) == [[1, 3, 4], [9, 9, 1]]
    found = spans(list(range(0, 4000, 2)), 8)
    assert len(found) == 8
    assert (found[0][0], found[-1][1]) == (0, 3998)


def test_a_chain_and_a_nan_in_what_actions_did():
    log = ActionLog("DecayLR")
    for step, (before, after) in enumerate([(1.0, 0.5), (0.5, 0.25)]):
        log.add(ActionRecord("DecayLR", step, "", before, after))
    assert str(log.intervention()) == "DecayLR 2 times, 1 → 0.25 (steps 0 to 1)"
    clip = ActionLog("Clip")
    for before in (math.nan, 7.0, 3.0):
        clip.add(ActionRecord("Clip", 1, "", before, 1.0))
    assert clip.intervention().before == 7.0


def test_the_same_answers_inside_a_file(run: RecordedRun):
    data = embed({"version_0": run})
    text = as_script(data)
    assert "<" not in text
    assert json.loads(text) == data
    levels = [gzip.decompress(base64.b64decode(m)) for m in data["maps"]["version_0"]["grad_norm"]]
    headers = [decode(level)[0] for level in levels]
    assert [header["width"] for header in headers] == [1, 4, 16]
    assert headers[0]["stats"] == ["extreme"]
    assert headers[1]["stats"] == ["extreme", "min", "mean", "max", "nonfinite"]
    assert headers[-1]["shape"][1] <= 512
    for level in levels:
        header, planes = decode(level)
        _, exact = decode(answers.bins(run, "x", most=len(header["first"]), stats=header["stats"]))
        np.testing.assert_allclose(planes, exact, rtol=1.3e-4)
    steps = [step["step"] for step in data["steps"]["version_0"]]
    assert {0, SPIKE, BROKEN, STEPS - 1} <= set(steps)
    assert steps == sorted(steps)


def test_a_live_history_gives_the_same_view(run: RecordedRun):
    history = History()
    for t in range(500):
        history.append(sample(t))
    live = from_history(history)
    assert live.series["grad_norm"].steps.tolist() == list(range(500))
    assert set(live.series) == set(run.series) - {"weight_norm"} | {"zeros", "gain", "saturated"}
    recorded = decode(answers.bins(run, "x", stop=499, most=8192))[1]
    np.testing.assert_array_equal(decode(answers.bins(live, "x", most=8192))[1], recorded)
    json.dumps(embed({"x": live}), allow_nan=False)
    assert answers.at_step(live, "x", 3)["series"]["grad_norm"]["values"][0] > 0
    empty = from_history(History())
    assert answers.describe(empty, "x")["steps"] == 0
    json.dumps(embed({"x": empty}), allow_nan=False)


def shapes(data: object, path: str = "") -> set[str]:
    """The keys of an answer, with those above them; lists are what their entries are."""
    if isinstance(data, list):
        return set().union(*(shapes(entry, path) for entry in data)) if data else set()
    if not isinstance(data, dict):
        return set()
    # What users name is no part of the contract, and neither is which series there are.
    free = ("evidence", "config", "environment", "earlier")
    found = set()
    for key, value in data.items():
        name = "*" if path == ".series" and not isinstance(data.get("rows"), list) else key
        found |= {f"{path}.{name}"}
        found |= set() if key in free else shapes(value, f"{path}.{name}")
    return found


def test_the_contract_names_what_is_answered_and_nothing_else(run: RecordedRun):
    page = (Path(__file__).parents[2] / "frontend" / "API.md").read_text(encoding="utf-8")
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL)]
    header = decode(answers.bins(run, "version_0"))[0]
    given = {
        "findings": json.loads(json.dumps(answers.describe(run, "version_0"))),
        "width": header,
        "exact": answers.at_step(run, "version_0", 1230, 0),
        "maps": embed({"version_0": run}),
    }
    for mark, answer in given.items():
        (block,) = (block for block in blocks if mark in block)
        if mark == "maps":  # the other answers again, by run
            assert set(block) == set(answer)
            assert set(block["runs"]) == set(answer["runs"])
            continue
        assert shapes(answer) == shapes(block)
    for series in run.series:
        assert f"`{series.partition(':')[0]}" in page
