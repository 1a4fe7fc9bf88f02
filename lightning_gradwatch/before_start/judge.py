"""Judges passes over one batch before training: what is ill now, and not what is only young.

Weights that start at zero (gates of residual branches, LoRA, heads) let no gradient pass and open
with the first step. Recurrent networks start forgetful, and many learn to remember.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from lightning_gradwatch.before_start.passes import PASSES
from lightning_gradwatch.detectors import (
    DeadUnits,
    Detector,
    ExplodingGradient,
    NoGradient,
    NonFiniteGradient,
    SaturatedActivation,
    VanishingGradient,
)
from lightning_gradwatch.detectors.sentences import amount
from lightning_gradwatch.detectors.time_profile import TimeReading, read_time
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.sample import Sample

#: One batch switches fewer units on than a run does.
_DEAD = 0.8
#: A ratio of the first time steps to the last that is worth a word,
_FORGETFUL = 1e-4
#: that a plain recurrence does not recover from,
_HOPELESS = 1e-9
#: and one that gates do not recover from either.
_HOPELESS_GATED = 1e-30

_LOOKS = PASSES - 1


def findings_of(samples: Sequence[Sample], recurrent: Mapping[str, str]) -> list[Finding]:
    """Return what is ill, one finding for each statement, without causes.

    Args:
        samples: What the passes looked like.
        recurrent: Kind of every recurrent module.
    """
    detectors: list[Detector] = [
        NonFiniteGradient(),
        ExplodingGradient(),
        VanishingGradient(patience=_LOOKS),
        DeadUnits(fraction=_DEAD, patience=_LOOKS),
        SaturatedActivation(patience=_LOOKS, warmup=0),
        NoGradient(patience=PASSES),
    ]
    latest: dict[tuple[str, tuple[str, ...]], Finding] = {}
    for detector in detectors:
        for sample in samples:
            for found in detector.update(sample):
                # Depth and activations are judged over all passes: the latest word counts.
                place = found.layers if found.code == "no_gradient" else ()
                latest[found.code, place] = found
    said = [_before_training(f) for f in latest.values()]
    return [*said, *_through_time(samples, recurrent)]


def starves(samples: Sequence[Sample]) -> bool:
    """Whether the early layers get no gradient."""
    detector = VanishingGradient(patience=_LOOKS)
    return any([*detector.update(sample)] for sample in samples)


def open_zeros(module: nn.Module) -> Callable[[], None] | None:
    """Return what gives small random values to weights that start at zero; None if none do.

    Biases are left alone: zero is what they usually start from.
    """
    closed = [
        parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
        and not name.rpartition(".")[2].startswith("bias")
        and parameter.is_floating_point()
        and parameter.numel()
        and not bool(parameter.detach().any())
    ]

    def fill() -> None:
        with torch.no_grad():
            for parameter in closed:
                fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
                parameter.data.normal_(0.0, 0.1 / fan_in**0.5)

    return fill if closed else None


def _before_training(finding: Finding) -> Finding:
    if finding.code != "no_gradient":
        return finding
    return replace(finding, summary=finding.summary.replace(" steps.", " passes over one batch."))


def _through_time(samples: Sequence[Sample], recurrent: Mapping[str, str]) -> Iterator[Finding]:
    readings: dict[str, list[TimeReading]] = {}
    for sample in samples:
        for profile in sample.flow.time_profiles if sample.flow is not None else ():
            reading = read_time(profile)
            if reading is not None:
                readings.setdefault(profile.module, []).append(reading)
    for module, seen in readings.items():
        ratio = float(np.median([reading.ratio for reading in seen]))
        if ratio >= _FORGETFUL:
            continue
        gated = recurrent.get(module, "").startswith(("LSTM", "GRU"))
        hopeless = ratio < (_HOPELESS_GATED if gated else _HOPELESS)
        yield _forgetful(seen[-1], ratio, hopeless, samples[-1].step)


def _forgetful(reading: TimeReading, ratio: float, hopeless: bool, step: int) -> Finding:
    tenth = max(1, reading.time_steps // 10)
    evidence = {
        "time_ratio": ratio,
        "factor_per_time_step": reading.per_step,
        "time_steps": float(reading.time_steps),
        "time_steps_compared": float(tenth),
    }
    part = "nothing" if ratio == 0.0 else amount(ratio)
    summary = (
        f"{reading.module} starts forgetful: the first {tenth} of {reading.time_steps} time steps "
        f"receive {part} of the gradient that the last {tenth} do"
    )
    if reading.per_step > 0:
        summary += f" (×{reading.per_step:.2g} per time step)"
    summary += "." if hopeless else "; many recurrent networks learn to remember."
    severity = Severity.WARNING if hopeless else Severity.INFO
    return Finding("vanishing", severity, (reading.module,), step, step, 1, evidence, summary)
