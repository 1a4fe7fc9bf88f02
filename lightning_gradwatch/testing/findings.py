"""What a finding has to look like, said where it does not."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping
from numbers import Real
from typing import Any

import numpy as np

from lightning_gradwatch.finding import CODES, Finding, Severity
from lightning_gradwatch.sample import Sample


def check_finding(finding: object, sample: Sample, known: Container[str]) -> None:
    """Raise unless a detector may say this of a sample.

    Args:
        finding: What it said.
        sample: What it had just been shown.
        known: Names of all layers and modules that it has been shown so far.

    Raises:
        AssertionError: Something is wrong with it; the message says what.
    """
    _demand(isinstance(finding, Finding), f"must be a Finding, got {type(finding).__name__}")
    assert isinstance(finding, Finding)
    code, step = finding.code, sample.step
    _demand(code in CODES or "." in code, f"code {code!r} is neither built in nor dotted (my.code)")
    _demand(
        isinstance(finding.severity, Severity), f"severity must be a Severity: {finding.severity!r}"
    )
    _demand(
        finding.first_step == finding.last_step == step,
        f"first_step and last_step must be the step at hand, {step}: got {finding.first_step} and "
        f"{finding.last_step}",
    )
    _demand(finding.count == 1, f"count must be 1 (merging is not its work), got {finding.count}")
    if finding.severity >= Severity.WARNING:
        _demand(bool(finding.summary), f"a {finding.severity.name} needs a summary")
    _demand(isinstance(finding.layers, tuple), f"layers must be a tuple: {finding.layers!r}")
    unknown = [name for name in finding.layers if name not in known]
    _demand(not unknown, f"layers names what no sample has: {', '.join(map(repr, unknown))}")
    _check_evidence(finding.evidence, sample)
    text = json.dumps(finding.to_dict())
    again = json.dumps(Finding.from_dict(json.loads(text)).to_dict())
    _demand(text == again, "is not the same after a round trip through JSON")


def _check_evidence(evidence: Mapping[str, Any], sample: Sample) -> None:
    for name, number in evidence.items():
        _demand(
            isinstance(number, Real) and not isinstance(number, bool),
            f"evidence {name!r} must be a number, got {type(number).__name__}",
        )
        if _is_finite(sample):
            _demand(
                math.isfinite(number),
                f"evidence {name!r} is {number}, although every number of the sample is finite",
            )


def _is_finite(sample: Sample) -> bool:
    return bool(math.isfinite(sample.loss) and np.isfinite(sample.grad_norm[sample.has_grad]).all())


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
