"""The table of remedies: every remedy is what its name says, and verdicts follow from numbers."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from examples import digits, operations, remedies, remedies_shown
from examples.patients import PATIENTS, Dose, error_signal, shifted_copies, treat
from examples.treatments import CNN, EXPLODING, MLP, RNN, TREATMENTS
from examples.verdicts import Outcome, judge, summary
from lightning_gradwatch import History
from lightning_gradwatch.testing import make_flow, make_sample

ROOT = Path(__file__).resolve().parents[2]
ASKED = (
    "ReLU", "leaky ReLU", "PReLU", "He weights", "Xavier weights", "BatchNorm", "dropout",
    "weight norm", "residual", "LSTM", "GRU", "clipping", "exponential decay", "linear decay",
    "cosine decay", "Adam", "RMSprop", "Adagrad", "twice as deep", "more data",
)  # fmt: skip


def built(name, dose):
    patient = PATIENTS[name]
    parser = patient.example.make_arguments()
    torch.manual_seed(0)
    model = patient.example.build(parser.parse_args(f"{patient.switches} {dose.switches}".split()))
    if dose.operation:
        dose.operation(model)
    return model


def test_everything_asked_for_is_there():
    names = [t.name for t in TREATMENTS]
    assert set(ASKED) <= set(names)
    assert len(set(names)) == len(names)
    for treatment in TREATMENTS:
        assert set(treatment.doses) == set(PATIENTS) >= set(treatment.promised)
        assert any(isinstance(treatment.doses[name], Dose) for name in treatment.promised)


@pytest.mark.parametrize(
    ("patient", "treatment"),
    [
        pytest.param(p, t, id=f"{t.name}, {p}")
        for t in TREATMENTS
        for p in PATIENTS
        if isinstance(t.doses[p], Dose)
    ],
)
def test_every_treated_network_works_and_every_weight_gets_a_gradient(patient, treatment):
    model = built(patient, treatment.doses[patient])
    model(torch.randn(8, *digits.SHAPES[PATIENTS[patient].form])).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


def test_operations_do_what_their_names_say():
    def kinds(name, operation):
        return [type(m) for m in built(name, Dose(operation=operation)).modules()]

    assert nn.ReLU not in kinds(CNN, operations.activations("prelu"))
    assert kinds(CNN, operations.dropout).count(nn.Dropout) == 24
    assert kinds(RNN, operations.drop_inputs).count(nn.Dropout) == 1
    plain = built(EXPLODING, Dose()).hidden[1].linear.weight
    he = built(EXPLODING, Dose(operation=operations.weights("he"))).hidden[1].linear.weight
    assert plain.std().item() == pytest.approx(1.0, rel=0.1)
    assert he.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.1)
    orthogonal = built(CNN, Dose(operation=operations.weights("orthogonal"))).blocks[0].conv1
    rows = orthogonal.weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)


def test_skips_add_the_input():
    plain, skipping = built(MLP, Dose()), built(MLP, Dose(operation=operations.skips))
    x = torch.randn(4, 64)
    torch.testing.assert_close(skipping.hidden[0](x), x + plain.hidden[0](x))


def test_weight_norm_of_the_state_is_used_and_trained():
    model = built(RNN, Dose(operation=operations.recurrent_weight_norm))
    x, length = torch.randn(2, 64, 1), model.rnn.parametrizations.weight_hh_l0.original0
    before = model(x)
    with torch.no_grad():
        length.mul_(2.0)
    assert not torch.allclose(before, model(x))


def test_more_data_is_more_varied_and_takes_as_many_steps():
    training, _ = digits.loaders("sequences")
    more = shifted_copies(training)
    assert len(more.dataset) == 5 * len(training.dataset)
    assert len(list(more)) == len(training)
    image = digits.datasets("images")[0].tensors[0][0, 0]
    moved = shifted_copies(digits.loaders("images")[0]).dataset.tensors[0][1437 * 2, 0]
    torch.testing.assert_close(moved[1:], image[:-1])  # a pixel down
    assert bool((moved[0] == image.min()).all())


def test_the_error_signal_is_read_from_the_flow():
    history = History()
    for step, first in ((0, 1e-3), (10, 1e-5), (20, 1e-5), (30, math.nan)):
        flow = make_flow({"fc": first, "act": 9.0, "head": 1.0}, kinds={"act": "ReLU"})
        history.append(make_sample(step, [1.0], flow=flow))
    assert error_signal(history) == pytest.approx((1e-3, 1e-5))
    profile = History()
    norms = np.logspace(-9, 0, 10).tolist()
    profile.append(make_sample(0, [1.0], flow=make_flow({"h": 1.0}, time_profiles={"rnn": norms})))
    assert error_signal(profile) == pytest.approx((1e-9, 1e-9))
    assert np.isnan(error_signal(History())).all()


def outcome(score):
    return Outcome(score, 1e-5, 1e-3, ("vanishing",))


@pytest.mark.parametrize(
    ("score", "verdict"),
    [(0.9, "helps"), (0.2, "a little"), (0.12, "no help"), (0.0, "harms")],
)
def test_verdicts_follow_from_the_gain(score, verdict):
    cell = judge([outcome(score), outcome(score)], [outcome(0.1), outcome(0.1)])
    assert cell.verdict == verdict
    assert cell.first == pytest.approx(1e-5)


def test_promises_are_compared_with_what_was_measured():
    def cell(score):
        return judge([outcome(score)], [outcome(0.1)])

    by_name = {t.name: t for t in TREATMENTS}
    both = by_name["residual"]
    assert summary(both, {MLP: cell(0.9), CNN: cell(0.9)}) == "holds"
    assert summary(both, {MLP: cell(0.9), CNN: cell(0.1)}) == (
        "holds in part: no help for plain CNN"
    )
    assert summary(by_name["clipping"], {EXPLODING: cell(0.1), RNN: cell(0.5)}) == (
        "does not hold: no help for exploding MLP; helps RNN as well"
    )


def test_the_real_thing_in_six_steps(tmp_path):
    result = treat(RNN, Dose("--cell gru"), seed=0, quick=True)
    assert len(result.watch.history) == 6
    first, later = error_signal(result.watch.history)
    assert 1e-3 < first < 1
    assert 1e-3 < later < 1
    outcomes = {t: outcome(0.1 + 0.1 * (t[1] != "")) for t in remedies.trials(1)}
    cells = remedies.judged(outcomes)
    remedies_shown.figure(cells, tmp_path / "map.svg")
    assert 10_000 < (tmp_path / "map.svg").stat().st_size < 300_000
    page = remedies_shown.markdown(cells, seeds=1)
    assert len(re.findall(r"^\| ", page, re.MULTILINE)) == len(TREATMENTS) + 3


def test_the_committed_table_is_of_these_remedies():
    page = (ROOT / "examples/remedies.md").read_text()
    for treatment in TREATMENTS:
        assert f"| {treatment.name} | {treatment.says} |" in page
    assert (ROOT / "docs/pictures/remedies.svg").stat().st_size < 300_000
