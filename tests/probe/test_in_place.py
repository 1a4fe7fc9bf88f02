"""The compiled reader: norms as of float64, and nothing read that is not plain memory."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_gradwatch import native
from lightning_gradwatch.probe import in_place
from lightning_gradwatch.probe.activations import of_module
from lightning_gradwatch.probe.gathered import Gatherer, Gradients, Held
from lightning_gradwatch.probe.host import Host
from lightning_gradwatch.probe.in_place import (
    count_in_place,
    norm_in_place,
    read_in_place,
    scale_in_place,
)  # fmt: skip
from lightning_gradwatch.probe.norms import NormReader

INF, NAN = float("inf"), float("nan")
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    native.compiled is None, reason="not built here, or this torch is too old for it"
)
#: Smallest and largest decimal exponent of plain numbers of each type.
RANGES = {
    torch.float32: (-38, 38.5), torch.bfloat16: (-38, 38), torch.float16: (-7, 4.8),
    torch.float64: (-307, 307),
}  # fmt: skip


def read(grads: list[torch.Tensor], p: float = 2.0) -> np.ndarray:
    norms = np.full(len(grads), -1.0)
    assert read_in_place(grads, norms, p) == []
    return norms


def reference(grad: torch.Tensor, p: float) -> float:
    values = grad.detach().abs().to(torch.float64).numpy().astype(np.longdouble)
    if p == INF or not values.size:
        return float(values.max(initial=0.0))
    return float(np.sum(values**p) ** (1 / np.longdouble(p)))  # 80 bits: no square leaves its range


@pytest.mark.parametrize("p", [1.0, 2.0, INF])
@pytest.mark.parametrize("dtype", list(RANGES))
@pytest.mark.parametrize("size", [1, 5, 16, 64, 65, 2047, 2048, 2049, 10_000])
def test_nan_and_inf_wherever_they_are(size, dtype, p):
    for place in {0, size // 2, size - 1}:
        nan, inf = torch.ones(size, dtype=dtype), torch.ones(size, dtype=dtype)
        nan[place], inf[place] = NAN, -INF
        norms = read([nan, inf, torch.ones(size, dtype=dtype)], p)
        assert math.isnan(norms[0])
        assert norms[1] == INF
        assert norms[2] == pytest.approx(reference(torch.ones(size), p), rel=1e-6)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_exact_to_1e6_over_the_whole_range_of_every_type(data):
    dtype = data.draw(st.sampled_from(list(RANGES)))
    p = data.draw(st.sampled_from([1.0, 2.0, INF]))
    lowest, highest = RANGES[dtype]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    size = data.draw(st.integers(1, 6000))
    # Halves of different magnitude, so that blocks of one tensor are of different ranges.
    ends = [data.draw(st.floats(lowest, highest)) for _ in range(3)]
    exponents = rng.choice(ends, size) - data.draw(st.floats(0, 3)) * rng.random(size)
    if data.draw(st.booleans()):
        exponents.sort()
    values = 10.0 ** np.clip(exponents, lowest, highest) * rng.choice([-1, 1], size)
    grad = torch.tensor(values).to(dtype)
    expected = reference(grad, p)
    if expected <= np.finfo(np.float64).max:
        assert read([grad], p)[0] == pytest.approx(expected, rel=1e-6)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_order_of_dimensions_is_read_and_gaps_and_overlaps_are_left(data):
    shape = data.draw(st.lists(st.integers(0, 5), max_size=5))
    whole = torch.arange(1.0, 1.0 + math.prod(shape)).reshape(shape)
    grad = whole.permute(data.draw(st.permutations(range(len(shape)))))
    if shape:
        kind = data.draw(st.sampled_from(["plain", "step", "shift", "expand"]))
        dim = data.draw(st.integers(0, len(shape) - 1))
        if kind == "step":
            grad = grad[(slice(None),) * dim + (slice(None, None, 2),)]
        elif kind == "shift":
            grad = grad.narrow(dim, min(1, grad.shape[dim]), max(0, grad.shape[dim] - 1))
        elif kind == "expand":
            grad = grad.unsqueeze(dim).expand(
                *grad.shape[:dim], data.draw(st.integers(1, 4)), *grad.shape[dim:]
            )
    norms = np.full(1, -1.0)
    left = read_in_place([grad], norms, 2.0)
    addresses = sorted(
        sum(i * s for i, s in zip(place, grad.stride(), strict=True))
        for place in np.ndindex(*grad.shape)
    )
    dense = addresses == list(range(len(addresses)))
    assert left == ([] if dense else [0])
    if dense:
        assert norms[0] == pytest.approx(reference(grad, 2.0), rel=1e-6)
    both = NormReader(Host()).read([grad, whole], [0, 1])[0]
    assert both == pytest.approx([reference(grad, 2.0), reference(whole, 2.0)], rel=1e-5)


def test_half_precision_bit_by_bit():
    """Every number that 16 bits can hold, denormal ones too."""
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        values = bits.view(dtype)
        with np.errstate(invalid="ignore"):
            expected = values.to(torch.float64).abs().numpy()
        got = read([value.reshape(1) for value in values.unbind()])
        assert np.array_equal(np.isnan(got), np.isnan(expected))
        assert got == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_gradients_that_require_grad_and_those_without_dimensions():
    x = torch.tensor(3.0, requires_grad=True)
    (x**3).backward(create_graph=True)
    assert x.grad is not None
    assert x.grad.requires_grad
    assert read([x.grad, torch.tensor(-2.0), torch.zeros(0, 3)]) == pytest.approx([27.0, 2.0, 0.0])


def test_reading_changes_nothing():
    grads = [torch.randn(3000), torch.randn(50).double() * 1e-300, torch.randn(9).half()]
    copies, versions = [g.clone() for g in grads], [g._version for g in grads]
    read(grads)
    assert all(torch.equal(a, b) for a, b in zip(grads, copies, strict=True))
    assert [g._version for g in grads] == versions


def test_what_is_not_plain_memory_is_left_and_never_crashes():
    """In a process of its own: a crash would take pytest along."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.probe.strange_gradients"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("all left alone\n")


def test_large_ones_are_torchs_where_it_has_threads(monkeypatch):
    monkeypatch.setattr(in_place, "SHARED", 100)
    small, large, norms = torch.ones(64), torch.ones(400), np.zeros(2)
    assert read_in_place([small, large], norms, 2.0) == []
    torch.set_num_threads(2)
    assert read_in_place([small, large], norms, 2.0) == [1]
    assert NormReader(Host()).read([small, large], [0, 1])[0].tolist() == [8.0, 20.0]


@pytest.mark.parametrize("p", [0.5, 3.0])
def test_other_norms_are_left(p):
    assert read_in_place([torch.ones(3), torch.ones(2)], np.zeros(2), p) == [0, 1]


def test_several_threads_at_once():
    grads = [torch.full((600_000,), float(i + 1)) for i in range(4)]
    expected = [math.sqrt(600_000) * (i + 1) for i in range(4)]
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(read(grads))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 6
    for norms in results:
        assert norms == pytest.approx(expected, rel=1e-6)


def test_wrong_arguments_are_refused():
    grads = (torch.ones(3),)
    for arguments in (
        ([torch.ones(3)], np.zeros(1), 2, 9), (grads, np.zeros(2), 2, 9),
        (grads, np.zeros(1, np.float32), 2, 9), (grads, np.zeros(1), 3, 9),
        (grads, np.zeros(1), 2, -1), (grads * 2, np.zeros(4)[::2], 2, 9), (grads, [0.0], 2, 9),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError, BufferError)):
            native.compiled.norms(*arguments)
    frozen = np.zeros(1)
    frozen.flags.writeable = False
    with pytest.raises((ValueError, BufferError)):
        native.compiled.norms(grads, frozen, 2, 9)
    with pytest.raises(TypeError):
        native.compiled.gradients([nn.Parameter(torch.ones(1))])
    with pytest.raises(AttributeError):
        native.compiled.gradients((object(),))
    with pytest.raises(ValueError, match="one gradient for each"):
        native.compiled.versions((), grads)
    with pytest.raises(ValueError, match="PyCapsule"):
        native.compiled.bind("no capsule", torch.Tensor, nn.Parameter)
    assert read([torch.ones(4)]).tolist() == [2.0]  # still bound to torch's own


@pytest.mark.parametrize("compiled", [True, False])
def test_gradients_are_gathered_and_changes_to_them_noticed(compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(native, "compiled", None)
    parameters = [nn.Parameter(torch.ones(3)) for _ in range(4)]
    parameters[0].grad, parameters[2].grad = torch.ones(3), torch.ones(3)
    gatherer = Gatherer(Held.of([(p, i - 1) for i, p in enumerate(parameters)]))
    gradients = gatherer.gather()
    assert [(p is parameters[c + 1], c) for p, c, _ in gradients] == [(True, -1), (True, 1)]
    assert all(g is p.grad for p, _, g in gradients)
    assert len(gradients) == 2
    before = gradients.version()
    assert gradients.version() == before
    parameters[2].grad.mul_(0.5)
    written = gradients.version()
    parameters[0].grad = torch.ones(3)
    replaced = gradients.version()
    parameters[0].grad = None
    assert len({before, written, replaced, gradients.version()}) == 4
    assert len(gatherer.gather()) == 1
    parameters[1].grad = torch.ones(3)
    assert [c for _, c, _ in gatherer.gather()] == [0, 1]
    assert not Gradients()


def test_the_environment_can_ask_for_torch_alone():
    code = "from lightning_gradwatch import native; print(native.compiled is None)"
    for value, answer in (("0", "True"), ("1", "False")):
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "GRADWATCH_NATIVE": value}, timeout=60,
        )  # fmt: skip
        assert result.stdout.strip() == answer


def test_a_torch_that_it_does_not_understand_is_left_alone(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "__dlpack_c_exchange_api__", "no capsule")
    assert native._load() is None
    monkeypatch.delattr(torch.Tensor, "__dlpack_c_exchange_api__")
    assert native._load() is None
    monkeypatch.undo()
    monkeypatch.setattr(torch.Tensor, "stride", lambda self: (1, 2, 3))
    assert native._load() is None
    monkeypatch.undo()
    assert native._load() is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [0.37, 1e-30, 1.0, 3e38])
def test_scaling_is_what_torch_does_to_the_bit(dtype, factor):
    special = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 1e-45, 1e-38, 3e38], dtype=dtype)
    grads = [torch.randn(3001, dtype=dtype), special, torch.randn(4, 5, dtype=dtype).t()]
    expected = [g.clone().mul_(factor) for g in grads]
    assert scale_in_place(grads, factor) == []
    for got, wanted in zip(grads, expected, strict=True):
        assert got.numpy().tobytes() == wanted.numpy().tobytes()


def test_autograd_is_told_of_scaling():
    bucket = torch.ones(10)
    view, half, sparse = bucket[2:6], torch.ones(3).half(), torch.eye(2).to_sparse()
    gaps = torch.ones(6)[::2]
    before = [t._version for t in (bucket, half, gaps)]
    assert scale_in_place([view, half, sparse, gaps], 0.5) == [1, 2, 3]
    assert bucket.tolist() == [1, 1, 0.5, 0.5, 0.5, 0.5, 1, 1, 1, 1]
    assert [t._version for t in (bucket, half, gaps)] == [before[0] + 1, *before[1:]]
    weight = torch.ones(3, requires_grad=True)
    saved = torch.ones(3)
    loss = (weight * saved).sum()
    scale_in_place([saved], 2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# ---------------------------------------------------------------------- counts


LAYOUTS = {
    "plain": lambda x: x,
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "carries a gradient": lambda x: x.requires_grad_() * 1.0,
}


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("dim", [-1, -2, -3, 0])
@pytest.mark.parametrize("dtype", list(RANGES))
def test_outputs_are_counted_as_torch_does(dtype, dim, layout):
    values = torch.randn(5, 70, 33).relu()
    values[:, 3:5], values[..., 7:9], values[2:4] = 0.0, -0.0, 0.0
    values[2, 3, 7] = 1e-7  # the one that switches its units on
    values = LAYOUTS[layout](values.to(dtype))
    activation = of_module(nn.Tanh())
    squares, nonzero, beyond, active = count_in_place(values, activation, dim, 1.0)
    values = values.detach()
    assert squares == pytest.approx(reference(values, 2.0) ** 2, rel=1e-6)
    assert nonzero == int((values != 0).sum())
    assert beyond == int((values.float().abs() > np.float32(activation.limit)).sum())
    if dim == 0:
        assert active is None
    else:
        on = (values != 0).movedim(dim, -1).reshape(-1, values.shape[dim]).any(dim=0)
        assert [*active] == on.int().tolist()
        assert sum(active) < len(active)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturation_around_a_center_is_that_of_torch_to_the_last_bit(dtype):
    activation = of_module(nn.Sigmoid())
    edges = torch.tensor([0.5 - activation.limit, 0.5 + activation.limit], dtype=dtype)
    values = torch.cat([edges + k * torch.finfo(torch.float32).eps / 8 for k in range(-40, 41)])
    counted = count_in_place(values, activation, 0, 1.0)
    wanted = (values - activation.center).abs().float().numpy() > activation.limit
    assert counted[2] == np.count_nonzero(wanted)
    assert 0 < counted[2] < values.numel()


def test_what_cannot_be_counted_is_left_to_torch():
    plain = torch.ones(4, 6)
    strange = [
        plain[:, ::2], plain.to_sparse(), plain.long(), plain.to(torch.complex64), plain[:0],
        plain * NAN, plain * 1e30, plain * 1e-30, nn.Parameter(plain),
    ]  # fmt: skip
    assert [count_in_place(values, None, 0, 1.0) for values in strange] == [None] * len(strange)
    assert count_in_place(plain, None, -3, 1.0) is None  # it has no such dimension
    assert count_in_place(plain.half(), of_module(nn.Sigmoid()), 0, 1.0) is None
    assert count_in_place(plain * 0, None, -1, 1.0) == (0.0, 0, 0, bytes(6))


def test_norm_of_one_tensor_is_that_of_many():
    for dtype in RANGES:
        values = torch.randn(3000).to(dtype)
        assert norm_in_place(values) == read([values])[0]
    assert norm_in_place(torch.ones(2, 4)[:, ::2]) is None
    assert norm_in_place(torch.zeros(0)) == 0.0


@pytest.mark.parametrize("arguments", [(torch.ones(2), -1), (torch.ones(2),), ("x", 1, 1)])
def test_arguments_of_the_reader_are_checked(arguments):
    with pytest.raises((TypeError, ValueError)):
        native.compiled.norm(*arguments)
    with pytest.raises((TypeError, ValueError)):
        native.compiled.count(*arguments)
