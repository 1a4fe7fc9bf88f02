"""Norms against a float64 reference, over the whole range of magnitudes and types."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity

from lightning_gradwatch import native
from lightning_gradwatch.probe import host
from lightning_gradwatch.probe.by_torch import LARGE, ROW
from lightning_gradwatch.probe.host import Host
from lightning_gradwatch.probe.norms import NormReader, norm_of

INF, NAN = float("inf"), float("nan")

pytestmark = pytest.mark.usefixtures("each_reader")


def reference(grad: torch.Tensor, p: float) -> float:
    dense = grad.to_dense() if grad.layout != torch.strided else grad
    values = dense.to(torch.complex128 if dense.is_complex() else torch.float64).abs().numpy()
    top = float(values.max(initial=0.0))
    if p == INF or not math.isfinite(top) or top == 0:
        return top
    return top * float(np.sum((values / top) ** p) ** (1 / p))


def read(grads: list[torch.Tensor], p: float = 2.0) -> np.ndarray:
    return NormReader(Host(), p).read(grads, range(len(grads)))[0]


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, INF])
@pytest.mark.parametrize("size", [1, 7, ROW, LARGE + 5, 3 * LARGE])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_nan_and_inf_are_seen_and_finite_neighbours_are_not_harmed(dtype, size, p):
    whole = torch.ones(size, dtype=dtype)
    nan, inf, both = whole.clone(), whole.clone(), whole.clone()
    nan[size // 2] = NAN
    inf[size // 2] = -INF
    both[0], both[-1] = INF, NAN
    norms = read([nan, whole, inf, both], p)
    assert math.isnan(norms[0])
    assert norms[1] == pytest.approx(reference(whole, p), rel=1e-5)
    assert norms[2] == INF
    assert not math.isfinite(norms[3])


@settings(max_examples=150, deadline=None)
@given(
    exponents=st.lists(st.floats(-30, 30), min_size=1, max_size=6),
    size=st.integers(1, 400),
    spread=st.floats(0, 8),
    p=st.sampled_from([1.0, 2.0, 2.5, 8.0, INF]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 2**31),
)
def test_exact_to_1e5_from_1e_minus_30_to_1e30(exponents, size, spread, p, dtype, seed):
    rng = np.random.default_rng(seed)
    grads = []
    for exponent in exponents:
        magnitudes = 10.0 ** (exponent - spread * rng.random(size))
        magnitudes = np.clip(magnitudes, 1e-30, 1e30)
        grads.append(torch.tensor(magnitudes * rng.choice([-1, 1], size)).to(dtype))
    for got, grad in zip(read(grads, p), grads, strict=True):
        assert got == pytest.approx(reference(grad, p), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1e-12, 1.0, 1e15, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_tensors_lose_no_digits(dtype, scale):
    grad = ((torch.rand(5_000_003) + 1) * scale).to(dtype)
    assert read([grad])[0] == pytest.approx(reference(grad, 2.0), rel=1e-5)


@pytest.mark.parametrize("p", [1.0, 2.0])
@pytest.mark.parametrize("size", [500, LARGE, LARGE + 1, 65_536, 70_000, 1_000_000])
def test_equal_elements_whose_roundings_add_up(size, p):
    for value in (1.01, 1.1, 1.37, 1.9):
        grad = torch.full((size,), value)
        assert read([grad, grad], p)[1] == pytest.approx(reference(grad, p), rel=1e-5)


def test_half_precision_does_not_overflow():
    grad = torch.full((1_000_000,), 65504.0, dtype=torch.float16)
    assert read([grad])[0] == pytest.approx(65504e3, rel=1e-5)


def test_memory_order_does_not_matter():
    grad = torch.randn(32, 64, 8, 8)
    orders = [grad, grad.to(memory_format=torch.channels_last), grad.transpose(0, 3), grad[::2]]
    for got, order in zip(read(orders), orders, strict=True):
        assert got == pytest.approx(reference(order, 2.0), rel=1e-5)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, INF])
def test_sparse_complex_and_empty(p):
    twice = torch.sparse_coo_tensor(
        torch.tensor([[1, 1, 3]]), torch.tensor([[3.0, 0.0], [0.0, 4.0], [1.0, 1.0]]), (5, 2)
    )
    compound = torch.randn(40, dtype=torch.complex64)
    negative = compound.conj()
    empty = torch.zeros(0, 3)
    norms = read([twice, compound, negative, empty], p)
    assert norms[0] == pytest.approx(reference(twice, p), rel=1e-5)
    assert norms[1] == pytest.approx(reference(compound, p), rel=1e-5)
    assert norms[2] == pytest.approx(reference(compound, p), rel=1e-5)
    assert norms[3] == 0.0


@pytest.mark.parametrize("scale", [1e-38, 1e-25, 1.0, 1e25, 0.0])
def test_one_transfer_once_the_band_is_known(scale):
    host = Host()
    reader = NormReader(host)
    grads = [torch.randn(50) * scale, torch.randn(3, LARGE) * scale, torch.randn(50)]
    reader.read(grads, range(3))
    before = host.reads
    for _ in range(3):
        norms, (loss,) = reader.read(grads, range(3), [torch.tensor(0.25)])
    assert host.reads - before == 3
    assert loss.tolist() == [0.25]
    assert norms[0] == pytest.approx(reference(grads[0], 2.0), rel=1e-5)


def test_bands_follow_a_gradient_up_and_down():
    reader = NormReader(Host())
    for scale in (1.0, 1e-28, 0.0, 1e-28, NAN, 1e-28, 1e28, INF, 1.0, 0.0, 1e30, 1e-30, 3.0):
        grad = torch.ones(64) * scale
        got = float(reader.read([grad], [0])[0][0])
        assert got == pytest.approx(8 * scale, rel=1e-5, nan_ok=True)


def test_bands_of_other_gradients_are_kept(monkeypatch):
    monkeypatch.setattr(native, "compiled", None)  # which needs no bands
    host = Host()
    reader = NormReader(host)
    tiny, plain = [torch.ones(64) * 1e-30], [torch.ones(64)]
    for _ in range(3):
        reader.read(tiny, [0])
        reader.read(plain, [1])
    assert host.reads == 7


def test_gradients_are_not_changed():
    grads = [torch.randn(100) * 1e-28, torch.randn(LARGE * 2), torch.randn(9).half()]
    copies = [g.clone() for g in grads]
    versions = [g._version for g in grads]
    read(grads)
    assert all(torch.equal(a, b) for a, b in zip(grads, copies, strict=True))
    assert [g._version for g in grads] == versions


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30, math.inf, math.nan])
def test_one_norm_is_the_same_at_hand_and_on_a_device(monkeypatch, scale, dtype):
    for shape in ((), (0,), (300, 300), (7, 5)):
        values = (torch.randn(shape) * scale).to(dtype)
        here = float(norm_of(values.transpose(0, -1) if values.dim() > 1 else values))
        with monkeypatch.context() as patch:
            patch.setattr(host, "is_at_hand", lambda _: False)
            there = norm_of(values)
        assert isinstance(there, torch.Tensor)
        assert here == pytest.approx(float(there), rel=1e-5, nan_ok=True)


def peak_of(call) -> int:
    """Return the most bytes that were allocated at a time on top of what there was."""
    with torch.profiler.profile(profile_memory=True, activities=[ProfilerActivity.CPU]) as profiler:
        call()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return max(accumulate(sizes), default=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e-200])
def test_no_more_than_one_gradient_is_copied_at_a_time(scale, dtype):
    grads = [torch.ones(50_000, dtype=dtype) * scale for _ in range(20)]
    assert peak_of(lambda: [g.clone() for g in grads]) >= 20 * grads[0].nbytes  # it does measure
    reader = NormReader(Host())
    reader.read(grads, range(20))
    assert peak_of(lambda: reader.read(grads, range(20))) < 2 * grads[0].nbytes
    assert peak_of(lambda: reader.global_norm(grads, range(20))) < 2 * grads[0].nbytes
    expected = [reference(grads[0], 2.0)] * 20
    assert reader.read(grads, range(20))[0] == pytest.approx(expected, rel=1e-5)
