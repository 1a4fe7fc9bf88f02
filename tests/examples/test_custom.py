"""The example's own detector and action, tested as a user would: without training anything."""

import pytest
import torch

from examples import custom_detector
from examples.custom_detector import HalveLR, LongStep
from lightning_gradwatch import ActionRecord, Finding, Severity
from lightning_gradwatch.actions import Action, Training
from lightning_gradwatch.detectors import Detector
from lightning_gradwatch.testing import (
    DETECTOR_CHECKS,
    check_detector,
    deliver,
    make_sample,
    rehearse,
    replay,
)

LONG = Finding("my.long_step", Severity.WARNING, ("fc1",), 3, 3)


def test_a_long_step_is_told_when_its_aftermath_arrives():
    norms = {"fc1.weight": 1.0, "fc2.weight": 1.0}
    samples = [
        make_sample(t, norms, weight_norm=[5.0, 5.0], update_norm=[2.0 if t == 1 else 0.01, 0.01])
        for t in range(4)
    ]
    [finding] = replay(LongStep(), deliver(samples))
    assert (finding.first_step, finding.layers) == (2, ("fc1",))
    assert finding.summary == "One step changed fc1.weight by 40%."


def test_sound_training_has_no_long_steps():
    assert replay(LongStep(), rehearse("relu", lr=0.05)) == []


@pytest.mark.parametrize("check", DETECTOR_CHECKS, ids=lambda check: check.__name__)
def test_it_passes_the_trials_of_the_built_in_ones(check):
    check(LongStep)


def test_all_trials_at_once():
    check_detector(LongStep)


def test_both_are_what_the_protocols_ask_for():
    assert isinstance(LongStep(), Detector)
    assert isinstance(HalveLR("my.long_step"), Action)


def test_the_action_halves_the_learning_rate_on_its_code_alone():
    weight = torch.nn.Parameter(torch.ones(2))
    sgd = torch.optim.SGD([weight], lr=0.4)
    training = Training(make_sample(3, [1.0]), sgd, lambda: [("weight", weight)])
    assert HalveLR("my.long_step").apply([], training) is None
    assert HalveLR("exploding").apply([LONG], training) is None
    record = HalveLR("my.long_step").apply([LONG], training)
    assert record == ActionRecord("HalveLR", 3, "my.long_step", 0.4, 0.2)
    assert sgd.param_groups[0]["lr"] == 0.2


def test_in_a_real_fit(tmp_path):
    parser = custom_detector.make_arguments()
    args = parser.parse_args(["--steps", "30", "--logdir", str(tmp_path)])
    watch = custom_detector.train(args).watch
    assert "my.long_step" in {f.code for f in watch.findings}
    records = [r for r in watch.actions_taken if r.action == "HalveLR"]
    assert records
    assert records[0].after == pytest.approx(0.025)
