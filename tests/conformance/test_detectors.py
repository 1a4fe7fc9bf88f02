"""Every built-in detector through the same trials."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from lightning_gradwatch.detectors import default_detectors
from lightning_gradwatch.finding import CODES, Finding, Severity
from lightning_gradwatch.layers import Layout
from lightning_gradwatch.sample import Flow, TimeProfile
from lightning_gradwatch.testing import make_sample, replay
from tests.detectors.runs import deliver, is_measured, through_json

BUILT_IN = [type(d) for d in default_detectors()]
EMPTY = Layout((), (), (), (), (), ())


@pytest.fixture(params=BUILT_IN, ids=lambda kind: kind.__name__)
def detector(request):
    return request.param()


def eventful(steps=260, seed=0, scale=1.0):
    """A run with everything in it: fading layers, spikes, NaN, overflows, two optimizers."""
    rng = np.random.default_rng(seed)
    samples = []
    for t in range(steps):
        grads = list(np.exp(0.3 * rng.normal(size=6)) * np.logspace(-9, 0, 6))
        if t in (70, 130):
            grads = [g * 1e4 for g in grads]
        if t in (90, 91):
            grads[2] = math.nan
        if t >= 200:
            grads = [g * 3.0 ** (t - 200) for g in grads]
        served = [g if t % 3 else None for g in grads[:1]] + grads[1:]
        sample = make_sample(
            t,
            [g if g is None else g * scale for g in served] + [None],
            weight_norm=[5.0] * 7,
            update_norm=[0.1] * 7,
            descent=[0.0 if g is None else 0.1 * g * scale for g in served] + [math.nan],
            loss=scale * (2.0 if t < 200 else 2.0 * 3.0 ** (t - 200)) * rng.uniform(0.9, 1.1),
            optimizer=int(t % 7 == 6),
            amp_overflow=t in (90, 150),
            accumulated=0.5 if t % 50 == 49 else 1.0,
        )
        if is_measured(t):
            profile = TimeProfile("layer3", scale * np.logspace(-12, 0, 40))
            sample = replace(sample, flow=Flow((profile,)))
        samples.append(sample)
    return deliver(samples)


def told(findings):
    """What was said, numbers rounded: a scale of the loss leaves their last digits."""
    return [(f.code, f.severity, f.layers, f.first_step, f.count) for f in findings]


def check(finding: Finding, step: int) -> None:
    assert finding.code in CODES
    assert finding.first_step == finding.last_step == step
    assert finding.count == 1
    assert finding.summary.endswith(".")
    assert all(type(number) is float for number in finding.evidence.values())
    assert Finding.from_dict(through_json(finding.to_dict())) == finding


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "norms",
    [
        pytest.param([math.nan] * 4, id="NaN"),
        pytest.param([math.inf] * 4, id="Inf"),
        pytest.param([1.0, math.nan, math.inf, 0.0], id="mixed"),
        pytest.param([0.0] * 4, id="zeros"),
        pytest.param([1e-30] * 4, id="1e-30"),
        pytest.param([1e30] * 4, id="1e30"),
        pytest.param([1e-300, 1e300, 1e-300, 1e300], id="both ends of float64"),
        pytest.param([None] * 4, id="no gradient at all"),
        pytest.param([1.0], id="one layer"),
    ],
)
@pytest.mark.parametrize("loss", [1.0, 0.0, -1.0, math.nan, math.inf, 1e30, 1e-30])
def test_bears_any_numbers(detector, norms, loss):
    samples = deliver(
        [make_sample(t, norms, weight_norm=[1.0] * len(norms), loss=loss) for t in range(60)]
    )
    with np.errstate(all="raise", under="ignore"):
        for sample in samples:
            for finding in detector.update(sample):
                check(finding, sample.step)
    json.dumps(detector.state_dict())


def test_bears_a_model_without_parameters(detector):
    assert replay(detector, [make_sample(t, {}, layout=EMPTY, loss=1.0) for t in range(60)]) == []


def test_bears_a_layout_that_changes(detector):
    names = [f"layer{i}.weight" for i in range(5)]
    samples = []
    for t in range(120):
        present = names[:3] if t < 40 else names if t < 80 else names[::-1]
        samples.append(
            make_sample(t, dict.fromkeys(present, 1.0), weight_norm=[1.0] * len(present), loss=1.0)
        )
    assert replay(detector, deliver(samples)) == []


# ------------------------------------------------------------------ what is said


def test_findings_are_well_formed(detector):
    found = 0
    for sample in eventful():
        for finding in detector.update(sample):
            check(finding, sample.step)
            found += 1
    assert found, f"{type(detector).__name__} saw nothing in a run that has everything"


def test_a_healthy_run_has_no_warning(detector):
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
    assert [f for f in replay(detector, samples) if f.severity >= Severity.WARNING] == []


@pytest.mark.parametrize("scale", [1e-6, 1e5])
def test_the_scale_of_the_loss_changes_nothing(detector, scale):
    plain = told(replay(detector, eventful()))
    detector.reset()
    assert told(replay(detector, eventful(scale=scale))) == plain


# ------------------------------------------------------------------ state


@pytest.mark.parametrize("stop", [0, 1, 5, 51, 92, 131, 205])
def test_a_resumed_run_decides_as_an_uninterrupted_one(detector, stop):
    samples = eventful()
    whole = replay(detector, samples)
    first, second = type(detector)(), type(detector)()
    before = replay(first, samples[:stop])
    second.load_state_dict(through_json(first.state_dict()))
    after = replay(second, samples[stop:])
    assert told(before + after) == told(whole)
    assert repr(before + after) == repr(whole)  # NaN in the evidence equals itself


def test_reset_starts_anew(detector):
    whole = repr(replay(detector, eventful()))
    fresh = json.dumps(type(detector)().state_dict())
    detector.reset()
    assert json.dumps(detector.state_dict()) == fresh
    assert repr(replay(detector, eventful())) == whole


def test_the_state_does_not_grow_with_the_run(detector):
    replay(detector, eventful())
    early = len(json.dumps(detector.state_dict()))
    for again in range(1, 6):
        replay(detector, [replace(s, step=s.step + 260 * again) for s in eventful(seed=again)])
    assert len(json.dumps(detector.state_dict())) < 1.3 * early + 1000


def test_the_state_holds_plain_types_only(detector):
    replay(detector, eventful())

    def walk(value):
        assert type(value) in (int, float, str, bool, list, tuple, dict, type(None)), value
        if isinstance(value, (list, tuple, dict)):
            for part in value.values() if isinstance(value, dict) else value:
                walk(part)

    walk(detector.state_dict())


def test_a_sample_is_left_as_it_was(detector):
    samples = eventful(100)
    before = [s.grad_norm.copy() for s in samples]
    replay(detector, samples)
    for sample, norms in zip(samples, before, strict=True):
        np.testing.assert_array_equal(sample.grad_norm, norms)
