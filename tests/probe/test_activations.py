"""Zeros, saturation and units that are off equal what the derivative says, however it is written.

The truth is the element-wise derivative in float64, from autograd.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_gradwatch.probe import activations, counts, host
from lightning_gradwatch.probe.activations import FLAT, of_module, of_node
from tests.probe.flows import flow_of, row

BOUNDED = [
    (nn.Sigmoid(), torch.sigmoid),
    (nn.Tanh(), torch.tanh),
    (nn.Hardsigmoid(), functional.hardsigmoid),
    (nn.Hardtanh(), functional.hardtanh),
    (nn.Hardtanh(-2.0, 0.5), lambda x: functional.hardtanh(x, -2.0, 0.5)),
]
DYING = [
    (nn.ReLU(), functional.relu),
    (nn.ReLU6(), functional.relu6),
    (nn.GELU(), functional.gelu),
    (nn.SiLU(), functional.silu),
    (nn.Mish(), functional.mish),
]


@pytest.fixture(autouse=True, params=["host", "device"])
def where(request, monkeypatch):
    """Both ways to count, on the same numbers."""
    if request.param == "device":
        monkeypatch.setattr(host, "is_at_hand", lambda values: False)


def slope(function, x: torch.Tensor) -> torch.Tensor:
    y = x.double().detach().requires_grad_()
    (grad,) = torch.autograd.grad(function(y).sum(), y)
    return grad.abs()


def peak(function) -> float:
    return float(slope(function, torch.linspace(-8, 8, 200_001)).max())


@pytest.mark.parametrize(("module", "function"), [*BOUNDED, *DYING, (nn.Softsign(), None)])
def test_largest_derivative_is_right(module, function):
    assert of_module(module).peak == pytest.approx(peak(function or module), rel=1e-3)


def net_of(activation, width=64):
    """Units of every scale: some far on flat parts, some in the middle."""
    first, last = nn.Linear(4, width), nn.Linear(width, 3)
    with torch.no_grad():
        first.weight.normal_()
        first.bias.copy_(torch.linspace(-12, 12, width))
    return nn.ModuleDict({"fc": first, "act": activation, "out": last})


@pytest.mark.parametrize(("module", "function"), [*BOUNDED, (nn.Softsign(), None)])
def test_saturation_of_modules(module, function):
    net, x = net_of(module), torch.randn(20, 4)
    flow = flow_of(net, lambda: net["out"](net["act"](net["fc"](x))).square().sum())
    derivative = slope(function or module, net["fc"](x))
    wanted = float((derivative < FLAT * peak(function or module)).double().mean())
    assert 0.2 < wanted < 0.95
    assert row(flow, "act")["saturated_fraction"] == pytest.approx(
        wanted, abs=1 / derivative.numel()
    )
    assert row(flow, "act")["units"] == 0
    assert math.isnan(row(flow, "out")["saturated_fraction"])


@pytest.mark.parametrize("hidden", [False, True], ids=["handed on", "hidden behind a view"])
@pytest.mark.parametrize(("module", "function"), BOUNDED)
def test_saturation_of_functions_is_that_of_modules(module, function, hidden):
    """Hidden, the output is in no module's hands: gradients on both sides tell the derivative."""
    net, x = net_of(module), torch.randn(20, 4)

    def run():
        h = function(net["fc"](x))
        return net["out"](h.flip(0) if hidden else h).square().sum()

    got = row(flow_of(net, run), f"{of_module(module).name}(fc)")
    derivative = slope(function, net["fc"](x))
    wanted = float((derivative < FLAT * peak(function)).double().mean())
    assert got["saturated_fraction"] == pytest.approx(wanted, abs=2 / derivative.numel())
    assert bool(got["functional"])


def dead_units(function, values: torch.Tensor) -> torch.Tensor:
    """Units, the last dimension, that never have a slope to speak of."""
    derivative = slope(function, values)
    if function is functional.relu6:  # the upper end is saturation
        derivative = torch.where(values > 3, torch.ones_like(derivative), derivative)
    return (derivative < FLAT * peak(function)).reshape(-1, values.shape[-1]).all(0)


@pytest.mark.parametrize("way", ["module", "function", "hidden"])
@pytest.mark.parametrize(("module", "function"), DYING)
def test_units_that_are_never_active(module, function, way):
    net, x = net_of(module), torch.randn(20, 4)

    def run():
        h = (net["act"] if way == "module" else function)(net["fc"](x))
        return net["out"](h.flip(0) if way == "hidden" else h).square().sum()

    flow = flow_of(net, run)
    got = row(flow, "act" if way == "module" else f"{of_module(module).name}(fc)")
    values = net["fc"](x).detach()
    dead = dead_units(function, values)
    if way == "hidden" and function is functional.relu6:
        dead |= (values > 6).all(0)  # gradients cannot tell the two flat ends
    assert 5 < dead.sum() < 60
    assert got["units"] == 64
    assert got["never_active"] == int(dead.sum())
    assert got["active"].tolist() == (~dead).tolist()
    if way != "hidden" or function is functional.relu:
        wanted = float((function(values) == 0).double().mean())
        assert got["zero_fraction"] == pytest.approx(wanted, abs=1e-6)


def test_gradients_claim_nothing_of_units_without_gradient():
    """Dropped or unused units get no gradient; that does not make them dead."""
    net, x = net_of(nn.ReLU()), torch.randn(20, 4)
    keep = torch.zeros(64)
    keep[::2] = 1.0
    flow = flow_of(net, lambda: net["out"](functional.relu(net["fc"](x)) * keep).sum())
    active = row(flow, "relu(fc)")["active"]
    assert active[1::2].all()
    dead = dead_units(functional.relu, net["fc"](x).detach())
    assert active[::2].tolist() == (~dead[::2]).tolist()
    assert dead[::2].any()


def test_underflow_is_not_saturation():
    net = nn.ModuleDict({"fc": nn.Linear(4, 8), "out": nn.Linear(8, 1)})
    x = torch.randn(5, 4)
    run = lambda: net["out"](torch.tanh(net["fc"](x)).flip(0)).sum() * 1e-44  # noqa: E731
    assert math.isnan(row(flow_of(net, run), "tanh(fc)")["saturated_fraction"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision(dtype):
    net, x = net_of(nn.Tanh()).to(dtype), torch.randn(20, 4, dtype=dtype)
    flow = flow_of(net, lambda: net["out"](net["act"](net["fc"](x))).float().square().sum())
    wanted = float((slope(torch.tanh, net["fc"](x)) < FLAT).double().mean())
    assert row(flow, "act")["saturated_fraction"] == pytest.approx(wanted, abs=0.02)
    assert row(flow, "act")["out_grad_norm"] > 0


def test_channels_after_a_convolution_and_features_after_a_linear_layer():
    conv = nn.Conv1d(2, 3, 3)
    with torch.no_grad():
        conv.weight.mul_(0.01)
        conv.bias.copy_(torch.tensor([1.0, -1.0, 1.0]))
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(18, 1))
    flow = flow_of(net, lambda: net(torch.randn(4, 2, 8)).sum())
    assert row(flow, "1")["active"].tolist() == [True, False, True]

    linear = nn.Linear(2, 5)
    with torch.no_grad():
        linear.weight.mul_(0.01)
        linear.bias.copy_(torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0]))
    net = nn.Sequential(linear, nn.ReLU(), nn.Linear(5, 1))
    for shape in ((4, 2), (4, 3, 2), (4, 3, 6, 2)):  # the last: channels last, as in ConvNeXt
        flow = flow_of(net, lambda shape=shape: net(torch.randn(shape)).sum())
        assert row(flow, "1")["active"].tolist() == [True, False, True, False, False]


def test_residual_block_whose_relu_is_a_function():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

        def forward(self, x):
            out = self.norm(self.conv(x))
            out += x
            return functional.relu(out, inplace=True)

    net = nn.Sequential(nn.Conv2d(3, 4, 3), Block(), Block(), nn.Flatten(), nn.LazyLinear(1))
    x = torch.randn(2, 3, 8, 8)
    net(x)
    flow = flow_of(net, lambda: net(x).sum())
    names = flow.modules.names
    assert [n for n in names if n.startswith("relu")] == ["relu(1.norm)", "relu(2.norm)"]
    assert row(flow, "relu(2.norm)")["units"] == 4
    assert row(flow, "2")["out_grad_norm"] == pytest.approx(
        row(flow, "relu(2.norm)")["out_grad_norm"]
    )


def test_activation_inside_a_module_without_children():
    class SquaredReLU(nn.Module):
        def forward(self, x):
            return functional.relu(x).square()

    net = nn.Sequential(nn.Linear(3, 6), SquaredReLU(), nn.Linear(6, 1))
    with torch.no_grad():
        net[0].bias[2:] = -20
    x = torch.randn(5, 3)
    flow = flow_of(net, lambda: net(x).sum())
    off = net[0](x) <= 0
    got = row(flow, "1")
    assert got["zero_fraction"] == pytest.approx(float(off.double().mean()))
    assert got["units"] == 6
    assert got["active"].tolist() == (~off.all(0)).tolist()
    # Inside, nothing comes back to units that are off, so their gradients prove nothing.
    assert row(flow, "relu in 1")["never_active"] == 0


def test_gates_of_torchs_own_cells_are_no_activations_of_the_user():
    net = nn.ModuleDict({"cell": nn.LSTMCell(3, 4), "rnn": nn.RNNCell(4, 4)})
    with torch.no_grad():
        net["rnn"].bias_ih.fill_(9.0)
    flow = flow_of(net, lambda: net["rnn"](net["cell"](torch.randn(2, 3))[0]).sum())
    assert flow.modules.names == ("cell", "rnn")
    assert math.isnan(row(flow, "cell")["saturated_fraction"])
    assert row(flow, "rnn")["saturated_fraction"] == 1.0  # its output is its state


def test_recurrent_states_saturate():
    net = nn.RNN(3, 4)
    with torch.no_grad():
        net.bias_ih_l0.fill_(9.0)
    flow = flow_of(net, lambda: net(torch.randn(6, 2, 3))[0].sum())
    assert row(flow, "(root)")["saturated_fraction"] == 1.0


def test_zeros_are_counted_and_dropout_is_not_dead():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.5), nn.Linear(50, 1))
    flow = flow_of(net, lambda: net(torch.randn(40, 3)).sum())
    assert row(flow, "1")["zero_fraction"] == pytest.approx(0.5, abs=0.05)
    assert row(flow, "1")["units"] == 0
    assert row(flow, "0")["zero_fraction"] == 0


def test_many_units_are_counted_and_not_listed():
    net = nn.Sequential(nn.Linear(2, 5000), nn.ReLU(), nn.Linear(5000, 1))
    x = torch.randn(3, 2)
    flow = flow_of(net, lambda: net(x).sum())
    got = row(flow, "1")
    assert got["units"] == 5000
    assert got["active"] is None
    assert got["never_active"] == int((net[0](x) <= 0).all(0).sum())


def test_all_masks_of_a_step_stay_within_bounds():
    net = nn.ModuleDict({f"relu{i}": nn.ReLU() for i in range(140)} | {"fc": nn.Linear(1, 4096)})
    x = torch.ones(1, 1)
    flow = flow_of(net, lambda: sum(net[f"relu{i}"](net["fc"](x)).sum() for i in range(140)))
    modules = flow.modules
    assert modules.nbytes > sum(a.nbytes for a in modules.active if a is not None) == 65_536
    off = int((net["fc"](x) <= 0).sum())
    assert set(modules.never_active[modules.units > 0]) == {off}  # counted beyond the bound too


@pytest.mark.parametrize("units", [1, 15, 16, 17, 100])
def test_packed_masks_come_back(units):
    masks = [torch.rand(units) > 0.5, torch.rand(3) > 0.5]
    packed = counts.pack(masks).double().numpy().astype("<u2").view(np.uint8)
    bits = np.unpackbits(packed, bitorder="little")
    assert bits[:units].tolist() == masks[0].int().tolist()
    start = -(-units // 16) * 16
    assert bits[start : start + 3].tolist() == masks[1].int().tolist()


def test_nodes_are_known_by_name():
    x = torch.randn(3, requires_grad=True)
    for function, name in [
        (torch.relu, "relu"), (torch.sigmoid, "sigmoid"), (torch.tanh, "tanh"),
        (functional.gelu, "gelu"), (functional.silu, "silu"), (functional.relu6, "relu6"),
        (functional.hardtanh, "hardtanh"), (functional.hardsigmoid, "hardsigmoid"),
    ]:  # fmt: skip
        found = of_node(function(x).grad_fn)
        assert found is not None
        assert found.name == name
    assert of_node((x + 1).grad_fn) is None


def test_the_size_of_the_data_is_measured_where_it_enters():
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    x = torch.randn(16, 4) * 30
    flow = flow_of(net, lambda: net(x).sum()).modules
    assert flow.in_rms[flow.names.index("0")] == pytest.approx(float(x.square().mean().sqrt()))
    out = net[0](x)
    assert flow.out_rms[0] == pytest.approx(float(out.square().mean().sqrt()))
    assert flow.vectors.tolist()[:2] == [16, 16]
    assert np.isnan(flow.in_rms[[flow.names.index("1"), flow.names.index("2")]]).all()


@pytest.mark.parametrize(
    ("activation", "dtype"),
    [
        *product((None, activations.RELU), (torch.bfloat16, torch.int64)),
        *product((None, activations.RELU, of_module(nn.Tanh())), (torch.float32, torch.float64)),
    ],
)
@pytest.mark.parametrize("shape", [(5,), (7, 6), (2, 3, 4, 5)])
def test_both_ways_count_the_same(monkeypatch, shape, dtype, activation):
    values = (torch.randn(shape) * 2).relu().to(dtype)
    if dtype.is_floating_point:
        values.view(-1)[:3] = torch.tensor([math.nan, math.inf, -1.0])
    for tensor in (values, values.transpose(0, -1), values * 1e19 if len(shape) == 2 else values):
        found = []
        for here in (True, False):
            monkeypatch.setattr(host, "is_at_hand", lambda _, here=here: here)
            found.append(counts.Counts())
            found[-1].look_at(tensor, activation, -1)
        here, there = found
        for name in ("total", "squares", "nonzero", "nonfinite", "saturated", "vectors"):
            one, other = getattr(here, name), getattr(there, name)
            assert (one is None) == (other is None)
            assert one is None or float(one) == pytest.approx(float(other), rel=1e-5, nan_ok=True)
        assert (here.active is None) == (there.active is None)
        assert here.active is None or here.active.tolist() == there.active.tolist()
