"""AGC, ZClip and AutoClip against float64 references that use nothing of the package."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_gradwatch import GradWatchWarning
from lightning_gradwatch.actions import AdaptiveClip, AutoClip, ZClip
from lightning_gradwatch.errors import ConfigurationError
from tests.actions.steps import flat64, parameters_with, reference_norm, training_for
from tests.actions.test_in_trainer import adam, fit
from tests.trainer.models import scaler_plugin as scaler

torch.set_num_threads(1)


def sequence(n: int, spikes: Sequence[int] = ()) -> list[float]:
    drawn = random.Random(0)
    return [
        drawn.lognormvariate(0, 0.3) * (30 * drawn.random() + 5 if t in spikes else 1)
        for t in range(n)
    ]


def played(action: Any, norms: Sequence[float], scale: float = 1.0) -> list[float]:
    """What is left of gradients with these norms, in float64."""
    left = []
    for norm in norms:
        weight = nn.Parameter(torch.ones(2, dtype=torch.float64))
        weight.grad = torch.tensor([0.6, 0.8], dtype=torch.float64) * norm * scale
        action.apply([], training_for(torch.optim.SGD([weight], 0.1)))
        left.append(reference_norm([weight]) / scale)
    return left


# ------------------------------------------------------------------ ZClip


def zclip(norms: Sequence[float], alpha: float, threshold: float, warmup: int) -> list[float]:
    """The published algorithm, in plain numbers."""
    first = np.array(norms[:warmup])
    mean, variance = first.mean(), first.var()
    left = list(norms[:warmup])
    for g in norms[warmup:]:
        sigma = variance**0.5
        z = (g - mean) / sigma
        clipped = mean + threshold * sigma / (z / threshold) if z > threshold else g
        mean = alpha * mean + (1 - alpha) * clipped
        variance = alpha * variance + (1 - alpha) * (clipped - mean) ** 2
        left.append(clipped)
    return left


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize(("alpha", "threshold", "warmup"), [(0.97, 2.5, 25), (0.9, 1.5, 5)])
def test_zclip_is_the_published_one(
    alpha: float, threshold: float, warmup: int, scale: float
) -> None:
    norms = sequence(200, spikes=(40, 41, 90, 150))
    wanted = zclip(norms, alpha, threshold, warmup)
    action = ZClip(threshold, alpha=alpha, warmup_steps=warmup)
    assert played(action, norms, scale) == pytest.approx(wanted, rel=1e-9)
    assert sum(a < b * (1 - 1e-9) for a, b in zip(wanted, norms, strict=True)) >= 4


@pytest.mark.parametrize("make", [ZClip, AutoClip])
@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 10, 60])
def test_a_nonfinite_step_enters_nothing(make: Any, poison: float, at: int) -> None:
    norms = sequence(100, spikes=(80,))
    left = played(make(), [*norms[:at], poison, *norms[at:]])
    assert not math.isfinite(left.pop(at))
    assert left == played(make(), norms)


def test_zclip_has_a_fixed_limit_as_well_if_one_is_wanted() -> None:
    norms = sequence(60, spikes=(40,))
    left = played(ZClip(max_norm=1.2), norms)
    assert max(left) == pytest.approx(1.2)
    assert left[40] < 1.2 + 1e-9


def test_a_huge_step_in_the_warm_up_can_be_clipped_and_spoils_nothing() -> None:
    norms = sequence(60)
    spoilt = [*norms[:5], 1e6, *norms[5:]]
    left = played(ZClip(warmup_factor=100.0), spoilt)
    assert left.pop(5) == pytest.approx(max(norms[:5]))
    assert left[:25] == pytest.approx(norms[:25], rel=1e-9)
    assert max(left) < 3.0
    assert played(ZClip(), spoilt)[5] == pytest.approx(1e6)  # as published
    assert played(ZClip(warmup_factor=100.0), norms) == played(ZClip(), norms)


def test_norms_that_are_all_the_same_are_not_clipped() -> None:
    norms = [1.0] * 40 + [1.0 + 1e-7] + [1.0] * 5
    assert played(ZClip(), norms) == pytest.approx(norms, rel=1e-12)


# ------------------------------------------------------------------ AutoClip


@pytest.mark.parametrize("percentile", [0, 10, 50, 99.5, 100])
def test_autoclip_is_the_published_one(percentile: float) -> None:
    norms = sequence(150, spikes=(40, 41, 90))
    wanted = [
        min(norm, float(np.percentile(norms[: t + 1], percentile))) for t, norm in enumerate(norms)
    ]
    assert played(AutoClip(percentile), norms) == pytest.approx(wanted, rel=1e-9)


def test_autoclip_keeps_the_latest_norms_only() -> None:
    norms = sequence(100)
    action = AutoClip(50, history=7)
    wanted = [
        min(norm, float(np.percentile(norms[max(0, t - 6) : t + 1], 50)))
        for t, norm in enumerate(norms)
    ]
    assert played(action, norms) == pytest.approx(wanted, rel=1e-9)
    assert len(json.dumps(action.state_dict())) < 300


# ------------------------------------------------------------------ AGC


def agc(weight: torch.Tensor, grad: torch.Tensor, factor: float, eps: float) -> torch.Tensor:
    """The published rule in float64, unit by unit in a loop."""
    w, g = weight.detach().double(), grad.double()
    if w.squeeze().dim() <= 1:
        units: list[Any] = [...]
    else:
        units = list(range(len(w)))
    out = g.clone()
    for unit in units:
        limit = factor * max(float(w[unit].norm()), eps)
        norm = float(g[unit].norm())
        if norm > limit:
            out[unit] = g[unit] * (limit / norm)
    return out


SHAPES = [(5, 3), (4, 3, 3, 3), (4, 2, 3), (6,), (), (1, 7), (7, 1), (2, 2, 2, 2, 2)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_agc_is_the_published_one(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(len(shape))
    weight = nn.Parameter(torch.randn(shape).to(dtype))
    if len(shape) > 1:
        weight.data[0] = 0  # only eps keeps this unit from standing still
    weight.grad = (torch.randn(shape) * torch.logspace(-4, 1, max(weight.numel(), 1)).view(shape)
                   if shape else torch.tensor(3.0)).to(dtype)  # fmt: skip
    wanted = agc(weight, weight.grad, 0.05, 1e-3)
    training = training_for(torch.optim.SGD([weight], 0.1))
    record = AdaptiveClip(0.05, exclude=()).apply([], training)
    assert record is not None
    accuracy = {torch.float32: 1e-6, torch.float64: 1e-12, torch.bfloat16: 8e-3}[dtype]
    assert torch.allclose(weight.grad.double(), wanted, rtol=accuracy, atol=0)
    assert training.global_norm == pytest.approx(reference_norm([weight]), rel=1e-5)


@pytest.mark.parametrize("magnitude", [1e-25, 1e25])
def test_agc_at_any_magnitude(magnitude: float) -> None:
    weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.3, 0.4]]) * magnitude)
    weight.grad = torch.tensor([[3.0, 4.0], [3.0, 4.0]]) * magnitude
    AdaptiveClip(0.5, eps=1e-30, exclude=()).apply([], training_for(torch.optim.SGD([weight], 0.1)))
    wanted = torch.tensor([[1.5, 2.0], [0.15, 0.2]]) * magnitude
    assert torch.allclose(weight.grad / magnitude, wanted / magnitude, rtol=1e-5)


def test_units_that_need_nothing_are_left_alone_bit_for_bit() -> None:
    weight = nn.Parameter(torch.randn(4, 3))
    weight.grad = torch.randn(4, 3) * 1e-3
    weight.grad[2] *= 1e6
    before = weight.grad.clone()
    record = AdaptiveClip(0.1, exclude=()).apply([], training_for(torch.optim.SGD([weight], 0.1)))
    assert record is not None
    assert record.reason.startswith("1 units of 1 parameters")
    kept = [0, 1, 3]
    assert torch.equal(weight.grad[kept], before[kept])


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_unit_that_is_not_finite_spoils_no_other(poison: float) -> None:
    weight = nn.Parameter(torch.ones(3, 2))
    weight.grad = torch.tensor([[poison, 1.0], [1.0, 1.0], [1e-6, 0.0]])
    AdaptiveClip(0.01, exclude=()).apply([], training_for(torch.optim.SGD([weight], 0.1)))
    assert weight.grad[0].tolist()[1] == 1.0
    assert float(weight.grad[1].norm()) == pytest.approx(0.01 * 2**0.5)
    assert weight.grad[2].tolist() == pytest.approx([1e-6, 0.0])


def test_rows_of_an_embedding_with_sparse_gradients() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1, 3, 3])).sum().backward()
    dense = table.weight.grad.to_dense()
    wanted = agc(table.weight, dense, 0.01, 1e-3)
    training = training_for(torch.optim.SGD(table.parameters(), 0.1))
    assert AdaptiveClip(exclude=()).apply([], training) is not None
    assert torch.allclose(table.weight.grad.to_dense().double(), wanted, rtol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_in_a_fit_the_last_layer_is_not_clipped(tmp_path: Path, fused: bool) -> None:
    """Also under a scaler, whose gradients a fused optimizer leaves scaled."""
    seen: list[dict[str, float]] = []

    class Look(AdaptiveClip):
        def apply(self, findings: Any, training: Any) -> Any:
            record = super().apply(findings, training)
            seen.append({n: float(p.grad.norm() / p.norm()) for n, p in training.named_gradients()})
            return record

    for plugins in ([], [scaler()]):
        _, watch, _, _ = fit(tmp_path, [Look(0.01)], make=adam(fused), plugins=plugins)
        assert len(watch.actions_taken) == 8
        for ratios in seen:
            assert ratios["net.0.weight"] <= 0.011
            assert ratios["net.0.bias"] <= 0.011
            assert ratios["net.2.weight"] > 0.1
        seen.clear()


def test_a_model_of_one_layer_has_nothing_to_clip_and_says_so() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.full((2, 2), 100.0)
    training = training_for(torch.optim.SGD([weight], 0.1))
    action = AdaptiveClip(exclude=["layer0.*"])
    with pytest.warns(GradWatchWarning, match=r"clips nothing.*layer0.weight.*exclude=\[\]"):
        assert action.apply([], training) is None
    assert flat64([weight]).max() == 100.0


@pytest.mark.parametrize(
    ("make", "error", "shown"),
    [
        (lambda: AdaptiveClip(0), ValueError, "clip_factor.*> 0, got 0"),
        (lambda: AdaptiveClip(eps=-1), ValueError, "eps.*> 0, got -1"),
        (lambda: AdaptiveClip(exclude=[3]), TypeError, "glob patterns"),
        (lambda: ZClip(0), ValueError, "z_threshold.*> 0, got 0"),
        (lambda: ZClip(alpha=1.0), ValueError, "alpha.*< 1, got 1.0"),
        (lambda: ZClip(warmup_steps=1), ValueError, ">= 2, got 1"),
        (lambda: ZClip(max_norm=math.nan), ValueError, "max_norm.*got nan"),
        (lambda: ZClip(warmup_factor=1), ValueError, "warmup_factor.*> 1, got 1"),
        (lambda: AutoClip(101), ValueError, "percentile.*<= 100, got 101"),
        (lambda: AutoClip(history=0), ValueError, ">= 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(make: Any, error: type[Exception], shown: str) -> None:
    with pytest.raises(error, match=shown):
        make()


def test_sharded_parameters_are_refused_when_the_fit_starts() -> None:
    class Sharded:
        is_sharded = True

    with pytest.raises(ConfigurationError, match=r"whole units.*ClipGradNorm, ZClip or AutoClip"):
        AdaptiveClip().prepare(Sharded())


def test_parameters_without_a_gradient_are_no_matter() -> None:
    with_grad, without = parameters_with([torch.ones(2, 2)])[0], nn.Parameter(torch.ones(2))
    training = training_for(torch.optim.SGD([with_grad, without], 0.1))
    assert AdaptiveClip(exclude=()).apply([], training) is not None
    assert without.grad is None
