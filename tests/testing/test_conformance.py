"""Broken detectors are told what is broken, and sound ones pass."""

from __future__ import annotations

import random
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest

from lightning_gradwatch import Finding, Severity
from lightning_gradwatch.detectors import ExplodingGradient
from lightning_gradwatch.testing import check_detector


def say(sample, code="my.code", severity=Severity.INFO, layers=(), **fields):
    return [Finding(code, severity, layers, sample.step, sample.step, **fields)]


class Silent:
    def update(self, sample):
        return []


class Steps:
    """Says that a hundredth step was made, and is sound."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.count = 0

    def update(self, sample):
        self.count += 1
        return say(sample, evidence={"steps": self.count}) if self.count == 100 else []

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


@pytest.mark.parametrize("sound", [Silent, Steps])
def test_sound_ones_pass(sound):
    check_detector(sound)


def test_a_factory_may_hold_arguments():
    check_detector(lambda: ExplodingGradient(factor=50.0))


def test_a_fixed_threshold_passes_where_it_is_declared():
    check_detector(lambda: ExplodingGradient(max_norm=3.0), scale_free=False)
    with pytest.raises(AssertionError, match=r"loss times 1e-06 .* scale_free=False"):
        check_detector(lambda: ExplodingGradient(max_norm=3.0))


class Fragile(Silent):
    def update(self, sample):
        if sample.step == 7 and not np.isfinite(sample.loss):
            raise ValueError("no such number")
        return []


class Forgetful(Steps):
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Unsaved:
    count = 0

    def update(self, sample):
        self.count += 1
        return say(sample) if self.count == 100 else []


class Hoarder(Silent):
    def __init__(self):
        self.samples = []

    def update(self, sample):
        self.samples.append(sample.global_norm)
        return []


class Numpy(Steps):
    def state_dict(self):
        return {"count": {"steps": np.int64(self.count)}}


class Keys(Steps):
    def state_dict(self):
        return {0: self.count}


class Shared(Steps):
    seen: ClassVar = Counter()

    def update(self, sample):
        self.seen[sample.step] += 1
        return say(sample) if self.seen[sample.step] == 20 else []


class Chance(Silent):
    def update(self, sample):
        return say(sample) if random.random() < 0.5 else []


class Unreset(Steps):
    def reset(self):
        self.count = getattr(self, "count", 0)


class Meddling(Silent):
    def update(self, sample):
        sample.grad_norm[:] = 1.0
        return []


class Absolute(Silent):
    def update(self, sample):
        return say(sample) if sample.global_norm > 1.0 else []


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (Fragile, r"Fragile on .*, step 7: raised ValueError: no such number"),
        (Forgetful, "resumed at step .* state_dict must hold all"),
        (Unsaved, "resumed at step"),
        (Hoarder, r"bytes after 2,000 samples .* must be bounded"),
        (Numpy, r"state_dict\(\)\['count'\]\['steps'\] is of type int64"),
        (Keys, "the key 0: only str survives"),
        (Shared, "do they share state"),
        (Unreset, r"after reset\(\) it says something else"),
        (Meddling, "step 0: changed the sample"),
        (Absolute, "with the loss times 1e-06 it says"),
    ],
)
def test_broken_ones_are_told_what_is_broken(broken, complaint):
    with pytest.raises(AssertionError, match=f"(?s){complaint}"):
        check_detector(broken)


def test_chance_is_found_out():
    with pytest.raises(AssertionError, match="Chance on"):
        check_detector(Chance)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"code": "vanished"}, "'vanished' is neither built in nor dotted"),
        ({"severity": 1}, "severity must be a Severity: 1"),
        ({"severity": Severity.WARNING}, "a WARNING needs a summary"),
        ({"layers": ["layer0"]}, "layers must be a tuple"),
        ({"layers": ("nowhere",)}, "no sample has: 'nowhere'"),
        ({"count": 2}, "count must be 1"),
        ({"evidence": {"norm": "large"}}, "evidence 'norm' must be a number, got str"),
        ({"evidence": {"sick": True}}, "evidence 'sick' must be a number, got bool"),
        ({"evidence": {"ratio": float("nan")}}, "although every number of the sample is finite"),
    ],
)
def test_malformed_findings_are_told(fields, complaint):
    class Detector:
        def update(self, sample):
            return say(sample, **fields)

    with pytest.raises(AssertionError, match=complaint):
        check_detector(Detector)


def test_a_finding_of_another_step_is_told():
    class Late:
        def update(self, sample):
            return [Finding("my.late", Severity.INFO, (), sample.step - 1, sample.step)]

    with pytest.raises(AssertionError, match="must be the step at hand, 0: got -1 and 0"):
        check_detector(Late)


def test_something_that_is_no_finding_is_told():
    class Boolean:
        def update(self, sample):
            return [True]

    with pytest.raises(AssertionError, match="must be a Finding, got bool"):
        check_detector(Boolean)
