"""Norms that nobody looks at: exact at every magnitude, of every type, in one go."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_gradwatch.layers import combine_norms
from lightning_gradwatch.probe.wide import wide_norms, wide_total


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_norms_without_a_look_are_exact(p, dtype, old, monkeypatch):
    if old:  # a torch whose foreach norm takes no dtype

        def foreach_norm(group, p):
            pytest.fail("called without a dtype")

        monkeypatch.setattr(torch, "_foreach_norm", foreach_norm)
    torch.manual_seed(0)
    low, high = (1e-4, 1e3) if dtype == torch.float16 else (1e-30, 1e30)
    grads = [
        (torch.randn(size, dtype=torch.float64) * scale).to(dtype)
        for size, scale in [(1, low), (7, 1.0), (70_000, high), (9, low), (0, 1.0), (300, 1.0)]
    ]
    grads.append(torch.randn(6, 6, dtype=torch.float64).to(dtype).t()[::2])
    bad = [torch.tensor([1.0, math.nan], dtype=dtype), torch.tensor([math.inf, 1.0], dtype=dtype)]
    norms = np.zeros(len(grads) + 2)
    for places, vector in wide_norms([*grads, *bad], p):
        norms[places] = vector.numpy()
    for grad, norm in zip(grads, norms, strict=False):
        x = grad.double().abs().flatten()
        top = float(x.max()) if x.numel() else 0.0
        truth = top if math.isinf(p) or not top else top * float(((x / top) ** p).sum()) ** (1 / p)
        assert norm == pytest.approx(truth, rel=1e-9)
    assert math.isnan(norms[-2])
    assert math.isinf(norms[-1])
    total = float(wide_total([v for _, v in wide_norms(grads, p)], p))
    assert total == pytest.approx(combine_norms(norms[:-2], p), rel=1e-12)
    assert math.isnan(float(wide_total([v for _, v in wide_norms([*grads, *bad], p)], p)))


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_norms_without_a_look_of_complex_and_sparse_gradients(p):
    sparse = torch.sparse_coo_tensor([[0, 0, 3]], [3.0, 1.0, 3.0], (5,))
    [(_, a)] = wide_norms([torch.tensor([3 + 4j, 0])], p)
    [(_, b)] = wide_norms([sparse], p)
    assert float(a) == pytest.approx(5.0)
    assert float(b) == pytest.approx(7.0 if p == 1.0 else 5.0)
    assert wide_norms([], p) == []
    assert float(wide_total([], p)) == 0.0
