"""StopTraining: once asked for, with the reason, on all ranks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from lightning_gradwatch.actions import StopTraining
from lightning_gradwatch.finding import Finding, Severity
from tests.actions.steps import (
    EXPLODING,
    NONFINITE,
    finding,
    parameters_with,
    training_for,
)


def sgd() -> torch.optim.SGD:
    return torch.optim.SGD(parameters_with([torch.tensor([torch.nan, 4.0])]), lr=0.1)


@pytest.mark.parametrize("found", [NONFINITE, EXPLODING])
def test_it_stops_with_the_reason_and_leaves_the_gradients(found: list[Finding]) -> None:
    stopped: list[str] = []
    training = training_for(sgd(), step=9, stopped=stopped)
    record = StopTraining().apply(found, training)
    assert record is not None
    assert record.action == "StopTraining"
    assert record.step == 9
    assert record.reason.startswith(found[0].code)
    assert stopped == [f"StopTraining: {record.reason}"]
    assert training.stopped
    assert not training.touched


def test_the_worst_finding_is_the_reason() -> None:
    found = [replace(finding("spike"), severity=Severity.INFO), *NONFINITE]
    record = StopTraining(on=("spike", "nonfinite")).apply(found, training_for(sgd()))
    assert record is not None
    assert record.reason == "nonfinite: NaN in the gradient of layer0"
    assert math.isnan(record.before)
    assert math.isnan(record.after)


def test_other_codes_do_not_stop() -> None:
    training = training_for(sgd())
    assert StopTraining(on=("exploding",)).apply(NONFINITE, training) is None
    assert StopTraining().apply(NONFINITE, training_for(sgd(), amp_overflow=True)) is None
    assert not training.stopped


def test_unknown_codes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'nans'.*Choose from.*nonfinite"):
        StopTraining(on=("nans",))
