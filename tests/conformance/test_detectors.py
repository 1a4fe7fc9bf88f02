"""Every built-in detector through the trials that users have for their own, and a few more."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lightning_gradwatch.detectors import StatefulDetector, default_detectors
from lightning_gradwatch.finding import Severity
from lightning_gradwatch.testing import DETECTOR_CHECKS, make_sample, replay
from lightning_gradwatch.testing.runs import RUNS, run
from tests.detectors.runs import deliver

BUILT_IN = [type(d) for d in default_detectors()]


@pytest.fixture(params=BUILT_IN, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


@pytest.mark.parametrize("check", DETECTOR_CHECKS, ids=lambda check: check.__name__)
def test_detector(kind, check):
    with np.errstate(all="raise", under="ignore"):  # no warning of numpy's reaches a user's console
        check(kind)


def test_has_a_state(kind):
    assert isinstance(kind(), StatefulDetector)


def test_the_trials_hold_something_for_each(kind):
    found = [f for name in RUNS for f in replay(kind(), run(name))]
    assert found, f"{kind.__name__} saw nothing in any of the runs: its findings are unchecked"
    for finding in found:
        assert finding.summary.endswith(".")
        assert all(type(number) is float for number in finding.evidence.values())


@pytest.mark.parametrize("name", [name for name in RUNS if "healthy" in name])
def test_a_healthy_run_has_no_warning(kind, name):
    assert [f for f in replay(kind(), run(name)) if f.severity >= Severity.WARNING] == []


def test_a_run_that_only_fades_has_no_warning(kind):
    rng = np.random.default_rng(0)
    samples = deliver(
        [
            make_sample(
                t,
                list(np.exp(0.3 * rng.normal(size=8)) * 0.99**t),
                weight_norm=[5.0] * 8,
                loss=2.3 * 0.99**t,
            )
            for t in range(400)
        ]
    )
    assert [f for f in replay(kind(), samples) if f.severity >= Severity.WARNING] == []


def test_a_layout_that_changes_is_no_illness(kind):
    names = [f"layer{i}.weight" for i in range(5)]
    samples = []
    for t in range(120):
        present = names[:3] if t < 40 else names if t < 80 else names[::-1]
        samples.append(
            make_sample(t, dict.fromkeys(present, 1.0), weight_norm=[1.0] * len(present), loss=1.0)
        )
    assert [f for f in replay(kind(), deliver(samples)) if f.severity >= Severity.WARNING] == []


def test_reset_leaves_the_state_of_a_fresh_one(kind):
    detector = kind()
    replay(detector, run("an eventful run"))
    detector.reset()
    assert json.dumps(detector.state_dict()) == json.dumps(kind().state_dict())
