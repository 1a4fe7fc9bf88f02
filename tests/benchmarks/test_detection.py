"""The scoring against numbers worked out by hand and against scikit-learn, and our replay."""

from __future__ import annotations

import math

import pytest
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from benchmarks.detection import replay, score_all
from benchmarks.scoring import Report, Score, resolve, score
from benchmarks.tables import OURS, detail, document, losses, remedy_lines, summary
from benchmarks.zoo.advice import KEYS, UNKNOWN, key_of
from lightning_gradwatch.diagnosis.remedies import REMEDIES
from lightning_gradwatch.testing import make_sample
from tests.benchmarks.traces import trace, verdict, weight

#: Verdict, and what is reported of it.
CASES = [
    (verdict(), {}),
    (verdict(), {"vanishing": 3}),
    (verdict(tolerated="spike"), {"spike": 9}),
    (verdict("vanishing", remedies={"residual": 0.9, "lower_lr": 0.1}), {"vanishing": 10}),
    (
        verdict("exploding", "nonfinite", remedies={"lower_lr": 0.95, "adam": 0.2}),
        {"nonfinite": 7, "exploding": 150},
    ),
    (verdict("dead_units", "vanishing", remedies={"init": 0.8}), {"vanishing": 20}),
    (verdict("vanishing", remedies={"init": 0.3}), {"vanishing": 30, "saturated": 40}),
]
ADVICE = {"vanishing": ("residual", "init"), "exploding": (None, "adam", "lower_lr")}


@pytest.fixture
def scored() -> Score:
    runs = [trace(steps=200, case=str(i)) for i in range(len(CASES))]
    said = {run.case: Report(codes, ADVICE) for run, (_, codes) in zip(runs, CASES, strict=True)}
    pairs = [(run, truth) for run, (truth, _) in zip(runs, CASES, strict=True)]
    return score(pairs, lambda run: said[run.case])


def test_by_hand(scored: Score) -> None:
    assert scored.counts == {
        "dead_units": (0, 0, 1),
        "exploding": (1, 0, 0),
        "saturated": (0, 1, 0),
        "vanishing": (2, 1, 0),
    }
    assert scored.labels == ("dead_units", "exploding", "vanishing")
    assert scored.false_alarms == pytest.approx(1 / 3)
    assert scored.right == pytest.approx(3 / 4)
    assert scored.exact == pytest.approx(4 / 7)
    assert scored.micro_f1 == pytest.approx(6 / 9)
    assert scored.macro_f1 == pytest.approx((0 + 1 + 0.8) / 3)
    assert scored.precision("vanishing") == pytest.approx(2 / 3)
    assert scored.recall("vanishing") == 1
    assert math.isnan(scored.precision("dead_units"))
    assert scored.early == pytest.approx(2 / 4)  # the explosion was told of at step 150 of 200
    assert scored.median_step == 30


def test_advice_by_hand(scored: Score) -> None:
    assert [o.verdict.required[0] for o in scored.curable] == [
        "vanishing",
        "exploding",
        "dead_units",
    ]
    assert scored.first_remedy == pytest.approx(1 / 3)
    assert scored.any_remedy == pytest.approx(2 / 3)


def test_against_sklearn(scored: Score) -> None:
    true = [set(o.verdict.required) for o in scored.outcomes]
    said = [o.hits | o.false for o in scored.outcomes]
    binarize = MultiLabelBinarizer(classes=sorted(scored.counts)).fit(true)
    y, predicted = binarize.transform(true), binarize.transform(said)
    occurring = [i for i, code in enumerate(binarize.classes_) if code in scored.labels]
    micro = f1_score(y, predicted, average="micro", zero_division=0)
    macro = f1_score(y, predicted, average="macro", labels=occurring, zero_division=0)
    assert scored.micro_f1 == pytest.approx(micro)
    assert scored.macro_f1 == pytest.approx(macro)


@pytest.mark.parametrize(
    ("truth", "codes"),
    [
        (verdict("exploding"), {"exploding": 5}),
        (verdict("exploding nonfinite"), {"exploding": 5, "nonfinite": 5}),
        (verdict("vanishing", "exploding"), {"exploding": 5}),
        (verdict(), {"nonfinite": 5}),
    ],
)
def test_statements_that_cannot_tell_are_taken_for_what_is_right(truth, codes) -> None:
    assert resolve({"nonfinite|exploding": 5}, truth) == codes


def test_empty_scores_are_dashes() -> None:
    empty = Score(())
    assert math.isnan(empty.micro_f1)
    assert summary({OURS: empty})[0][1:] == ["-"] * 7


def test_replay_tells_what_the_engine_would() -> None:
    samples = [
        make_sample(step, [math.nan if step == 12 else 1.0, 1.0], loss=1.0) for step in range(20)
    ]
    said = replay(trace(samples=samples))
    assert said.codes == {"nonfinite": 12}
    assert said.advice["nonfinite"][0] == "bug"
    quiet = replay(trace(samples=samples[:12]))
    assert (dict(quiet.codes), dict(quiet.advice)) == ({}, {})


def test_whole_table_and_document() -> None:
    samples = [make_sample(s, [math.nan if s == 3 else 1.0], loss=1.0) for s in range(6)]
    sick = trace(samples=samples, loss=lambda s: math.nan if s > 2 else 1.0, steps=30)
    blind = trace([weight(norm=1e-9)], steps=30)
    pairs = [
        (sick, verdict("nonfinite", remedies={"bug": 1.0})),
        (blind, verdict("vanishing", family="deep")),
        (trace(steps=30), verdict()),
    ]
    scores, changes = score_all(pairs, pairs)
    assert len(scores) == 11
    assert len(changes) == 5
    ours = scores[OURS]
    assert ours.false_alarms == 0
    assert ours.first_remedy == 1
    assert losses(ours) == ["made (deep, p 0.00): missed vanishing"]
    assert "required  vanishing" in detail(ours.outcomes[1])
    assert (
        remedy_lines(ours)[1]
        == "First remedy works: 100.0 % of all (100.0 % of the recognised ones)."
    )
    text = document("tuning", scores, changes)
    assert "- made (deep, p 0.00): missed vanishing" in text
    assert "| AUTOTRAINER, tuned |" in text


#: Advice on what surrounds training; no rerun with one factor changed can tell whether it helps.
NOT_TESTABLE = ("precision='bf16-mixed'", "SkipStep()", "shorter sequences")


def test_every_remedy_is_understood() -> None:
    lines = {line.text for lines in REMEDIES.values() for line in lines} - {"{explosion_remedy}"}
    assert {text for text in lines if key_of(text) == UNKNOWN} == set()
    untested = {text for text in lines if key_of(text) is None}
    assert {text for text in untested if not any(part in text for part in NOT_TESTABLE)} == set()


@pytest.mark.parametrize(
    ("sentence", "key"),
    [
        ("Raise the learning rate: lr=0.1.", "higher_lr"),
        ("Raise the learning rate slowly over the first steps (warm-up).", "warmup"),
        ("Use Adam: torch.optim.Adam(model.parameters(), lr=1e-3).", "adam"),
        ("Use an activation with slope 1: nn.ReLU(), with nn.init.kaiming_normal_.", "activation"),
        ("Smaller initial weights: nn.init.xavier_normal_(w).", "init"),
        ("Pass all parameters to the optimizer: self.parameters().", "optimizer_parameters"),
        ("End the schedule later: the learning rate is 0 at step 40.", "schedule"),
        ("Less weight decay: weight_decay=0.", "weight_decay"),
        ("Use fewer layers.", "shallower"),
        ("Pray.", UNKNOWN),
    ],
)
def test_sentences(sentence: str, key: str) -> None:
    assert key_of(sentence) == key
    assert key in KEYS or key == UNKNOWN
