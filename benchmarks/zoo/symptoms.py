"""Symptoms measured against a healthy twin, each with a positive, a negative and a dead zone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.zoo.config import Config
from benchmarks.zoo.probe import Look
from benchmarks.zoo.train import Measured


@dataclass(frozen=True)
class Symptom:
    """One measured symptom.

    Attributes:
        code: The label it would give.
        value: What was measured; NaN where there was nothing to measure.
        zone: +1 there, -1 not there, 0 between.
        onset: Step at which it began; -1 where it did not.
    """

    code: str
    value: float
    zone: int
    onset: int = -1


def half_of(looks: Sequence[Look]) -> Sequence[Look]:
    """Return the second half of the run, by steps."""
    return [look for look in looks if look.step >= looks[-1].step / 2]


def _finite(run: Measured) -> list[Look]:
    return [look for look in run.looks if look.finite and math.isfinite(look.loss)]


def _since(looks: Sequence[Look], there: Sequence[bool]) -> int:
    """Return the step since which it was there to the end; else the first at which it was."""
    onset = -1
    for look, yes in zip(reversed(looks), reversed(there), strict=True):
        if not yes:
            break
        onset = look.step
    if onset < 0:
        onset = next((look.step for look, yes in zip(looks, there, strict=True) if yes), -1)
    return onset


def _graded(
    code: str, looks: Sequence[Look], values: Sequence[float], is_there: Callable[[float], bool],
    is_not: Callable[[float], bool],
) -> Symptom:  # fmt: skip
    late = [v for look, v in zip(looks, values, strict=True) if look in half_of(looks)]
    late = [v for v in late if not math.isnan(v)]
    if not late:
        return Symptom(code, math.nan, -1)
    value = float(np.median(late))
    if is_there(value):
        return Symptom(code, value, 1, _since(looks, [is_there(v) for v in values]))
    return Symptom(code, value, -1 if is_not(value) else 0)


def _early(look: Look) -> float:
    kappas = look.elasticity
    return float(np.median(kappas[: max(1, len(kappas) // 2)])) if kappas else math.nan


def vanishing_ratio(run: Measured, twin: Measured, config: Config) -> Symptom:
    """The early half's elasticity, or the time profile, over the twin's at the same loss."""
    looks, others = _finite(run), _finite(twin)
    values = []
    for look in looks:
        level = math.log(max(look.loss, 1e-12))
        other = min(others, key=lambda o: abs(math.log(max(o.loss, 1e-12)) - level))
        if config.arch == "rnn":
            mine, theirs = look.profile, other.profile
        else:
            mine, theirs = _early(look), _early(other)
        values.append(mine / theirs if theirs > 0 else math.nan)
    if not looks:
        return Symptom("vanishing", math.nan, -1)
    return _graded("vanishing", looks, values, lambda v: v <= 1e-2, lambda v: v >= 1e-1)


def exploding(run: Measured, twin: Measured) -> Symptom:
    """Norm and elasticity beyond anything in the twin, again and again or right before the end."""
    bounds = [
        max((v for v in values if math.isfinite(v)), default=math.nan)
        for values in (twin.norms, twin.elasticity)
    ]

    def beyond(factor: float) -> list[int]:
        return [
            i
            for i, (norm, product) in enumerate(zip(run.norms, run.elasticity, strict=True))
            if norm >= factor * bounds[0] and product >= factor * bounds[1]
        ]

    steps = beyond(100.0)
    wanted = max(3, len(run.norms) // 10)
    growth = max(
        (
            min(norm / bounds[0], product / bounds[1])
            for norm, product in zip(run.norms, run.elasticity, strict=True)
            if math.isfinite(norm) and math.isfinite(product)
        ),
        default=math.nan,
    )
    finite = [i for i in steps if math.isfinite(run.norms[i])]
    ends = run.nonfinite >= 0 and any(i < run.nonfinite for i in finite)
    if len(finite) >= wanted or ends:
        return Symptom("exploding", growth, 1, finite[0])
    return Symptom("exploding", growth, -1 if not len(beyond(10.0)) else 0)


def dead_units(run: Measured) -> Symptom:
    """Share of a layer's units that are zero for all samples, at all looks of the second half."""
    looks = [look for look in _finite(run) if look.dead]
    if not looks:
        return Symptom("dead_units", math.nan, -1)
    late = [look.dead for look in half_of(looks)]
    shares = [float(np.logical_and.reduce(masks).mean()) for masks in zip(*late, strict=True)]
    value = max(shares)
    if value >= 0.5:
        layer = shares.index(value)
        there = [float(look.dead[layer].mean()) >= 0.5 for look in looks]
        return Symptom("dead_units", value, 1, _since(looks, there))
    return Symptom("dead_units", value, -1 if value <= 0.25 else 0)


def saturated(run: Measured) -> Symptom:
    """Share of (unit, sample) pairs on the flat parts of a bounded activation."""
    looks = _finite(run)
    if not looks:
        return Symptom("saturated", math.nan, -1)
    values = [look.saturated for look in looks]
    return _graded("saturated", looks, values, lambda v: v >= 0.6, lambda v: v <= 0.35)


def oscillating(run: Measured) -> Symptom:
    """How far the loss climbs in total in the second half."""
    looks = _finite(run)
    late = half_of(looks) if looks else []
    value = sum(max(0.0, b.loss - a.loss) for a, b in itertools.pairwise(late))
    if value >= 1.0:
        return Symptom("oscillating", value, 1, _second_climb(looks))
    return Symptom("oscillating", value, -1 if value <= 0.3 else 0)


def _second_climb(looks: Sequence[Look]) -> int:
    """Return when the loss had climbed by L_const after its first fall: one jump is no swing."""
    climbed, fell, rose = 0.0, False, False
    for a, b in itertools.pairwise(looks):
        rose = rose or b.loss > a.loss
        fell = fell or (rose and b.loss < a.loss)
        climbed += max(0.0, b.loss - a.loss) if fell else 0.0
        if climbed >= 1.0:
            return b.step
    return looks[-1].step


def nonfinite(run: Measured) -> Symptom:
    """Any loss, gradient or parameter."""
    there = run.nonfinite >= 0
    return Symptom("nonfinite", float(there), 1 if there else -1, run.nonfinite)


def with_ablation(vanishing: Symptom, change: float) -> Symptom:
    """Weigh in what freezing the early half does to the final loss, over L_const."""
    if vanishing.zone == 1 and not change <= 0.1:
        return replace(vanishing, zone=0, onset=-1)
    return vanishing
