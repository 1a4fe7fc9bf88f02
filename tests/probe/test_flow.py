"""Gradients at outputs and gains equal what plain autograd says, in every way to write a model."""

from __future__ import annotations

import copy
import gc
import io
import math
import pickle
import warnings
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from lightning_gradwatch.errors import GradWatchWarning
from lightning_gradwatch.probe import host
from lightning_gradwatch.probe.flow import FlowProbe
from lightning_gradwatch.probe.gate import BackwardGate
from lightning_gradwatch.probe.host import Host
from lightning_gradwatch.probe.norms import wide_norm
from tests.probe.flows import armed, flow_of, norm, read, refuse, row, same


class Chain(nn.Sequential):
    """Keeps the tensors between its modules, so that plain autograd can be asked about them."""

    def forward(self, x):
        self.between = [x]
        for module in self:
            x = module(x)
            x.retain_grad()
            self.between.append(x)
        return x


def chain() -> Chain:
    return Chain(
        nn.Linear(6, 10), nn.Tanh(), nn.LayerNorm(10), nn.GELU(), nn.Linear(10, 8), nn.Sigmoid()
    ).double()


# ---------------------------------------------------------------------- non-finite first


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nonfinite_gradient_is_reported_and_named(value):
    net = chain()
    weights = torch.ones(4, 8, dtype=torch.float64)
    weights[0, 0] = value
    flow = flow_of(net, lambda: (net(torch.randn(4, 6, dtype=torch.float64)) * weights).sum())
    assert not math.isfinite(row(flow, "5")["out_grad_norm"])
    assert math.isnan(value) == math.isnan(row(flow, "5")["out_grad_norm"])
    assert not math.isfinite(row(flow, "0")["out_grad_norm"])
    assert math.isnan(row(flow, "5")["gain"])
    assert row(flow, "5")["nonfinite_fraction"] == 0


def test_nonfinite_activations_are_counted_from_the_module_that_made_them():
    class Log(nn.Module):
        def forward(self, x):
            return x.log()

    net = nn.Sequential(nn.Linear(2, 4), Log(), nn.Linear(4, 1))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.copy_(torch.tensor([1.0, 2.0, 0.0, -1.0]))
    flow = flow_of(net, lambda: net(torch.ones(3, 2)).sum())
    assert row(flow, "0")["nonfinite_fraction"] == 0
    assert row(flow, "1")["nonfinite_fraction"] == 0.5
    assert row(flow, "1")["zero_fraction"] == 0.25
    assert row(flow, "2")["nonfinite_fraction"] == 1


@pytest.mark.parametrize("magnitude", [1e-42, 1e-38, 1e-30, 1e-25, 1e-10, 1.0, 1e10, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_magnitudes(magnitude, dtype):
    values = (torch.randn(300) * magnitude).to(dtype)
    assert float(wide_norm(values)) == pytest.approx(norm(values), rel=1e-6)


def test_float64_beyond_its_squares_and_half_beyond_its_range():
    assert float(wide_norm(torch.full((4,), 1e-200, dtype=torch.float64))) == pytest.approx(2e-200)
    assert float(wide_norm(torch.full((4,), 1e200, dtype=torch.float64))) == pytest.approx(2e200)
    assert float(wide_norm(torch.full((10_000,), 6e4, dtype=torch.float16))) == pytest.approx(
        100 * float(torch.tensor(6e4, dtype=torch.float16)), rel=1e-6
    )
    assert float(wide_norm(torch.zeros(0, 3))) == 0


def test_vanishing_error_signal_is_followed_down_to_where_float32_squares_are_zero():
    torch.manual_seed(0)
    net = Chain(*[m for _ in range(20) for m in (nn.Linear(16, 16), nn.Sigmoid())])
    net.requires_grad_()
    flow = flow_of(net, lambda: net(torch.randn(8, 16)).mul(1e-12).sum())
    wanted = [norm(t.grad) for t in net.between[1:]]
    assert wanted[0] < 1e-24
    assert flow.modules.out_grad_norm[:-1] == pytest.approx(wanted, rel=1e-4)


# ---------------------------------------------------------------------- plain autograd says


def test_every_output_and_gain_against_plain_autograd():
    net = chain()
    x = torch.randn(7, 6, dtype=torch.float64)
    flow = flow_of(net, lambda: net(x).square().sum())
    modules = flow.modules
    assert modules.names == ("0", "1", "2", "3", "4", "5", "(root)")
    assert modules.kinds[:3] == ("Linear", "Tanh", "LayerNorm")
    assert modules.leaf.tolist() == [True] * 6 + [False]
    grads = [norm(t.grad) for t in net.between[1:]]
    assert modules.out_grad_norm[:-1] == pytest.approx(grads, rel=1e-12)
    assert modules.out_grad_norm[-1] == pytest.approx(grads[-1], rel=1e-12)
    assert math.isnan(modules.gain[0])  # raw data has no gradient
    assert modules.gain[1:6] == pytest.approx(np.divide(grads[:-1], grads[1:]), rel=1e-12)
    assert math.isnan(modules.gain[-1])
    assert modules.calls.tolist() == [1] * 7


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(6, 4), (3, 5, 6)),
        (nn.Conv2d(3, 4, 3), (2, 3, 8, 8)),
        (nn.Conv1d(3, 4, 3, padding=1), (2, 3, 8)),
        (nn.BatchNorm2d(3), (4, 3, 5, 5)),
        (nn.GroupNorm(1, 4), (3, 4, 5)),
        (nn.MaxPool2d(2), (2, 3, 8, 8)),
        (nn.Softmax(-1), (4, 6)),
        (nn.ReLU(inplace=True), (5, 6)),
        (nn.SiLU(inplace=True), (5, 6)),
        (nn.Softsign(), (5, 6)),
        (nn.GRUCell(6, 4), (5, 6)),
        (nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), (5, 6)),
    ],
)
def test_gain_is_the_modules_own_contribution_whatever_goes_around_it(module, shape):
    """A skip connection dominates the gradient at the input; it is not the module's doing."""
    module.double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    net = nn.ModuleDict({"m": module, "other": nn.Linear(1, 1).double()})

    def run():
        h = x * 1.0
        around = 1000 * h.sum() + net["other"](x.new_ones(1)).sum()
        return net["m"](h.clone() if getattr(module, "inplace", False) else h).square().sum() + (
            around
        )

    state = copy.deepcopy(module.state_dict())
    flow = flow_of(net, run)
    module.load_state_dict(state)
    y = module(x.clone() if getattr(module, "inplace", False) else x)
    (into,) = torch.autograd.grad(y, x, 2 * y.detach())
    assert row(flow, "m")["out_grad_norm"] == pytest.approx(norm(2 * y), rel=1e-9)
    assert row(flow, "m")["gain"] == pytest.approx(norm(into) / norm(2 * y), rel=1e-9)


def test_attention_whose_input_is_used_three_times():
    attention = nn.MultiheadAttention(8, 2, batch_first=True).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    h = x * 1.0
    flow = flow_of(attention, lambda: attention(h, h, h)[0].square().sum() + h.sum())
    y = attention(x, x, x)[0]
    (into,) = torch.autograd.grad(y, x, 2 * y.detach())
    assert row(flow, "(root)")["gain"] == pytest.approx(norm(into) / norm(2 * y), rel=1e-9)


def test_leaf_that_uses_its_input_several_times():
    class RMSNorm(nn.Module):
        def forward(self, x):
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)

    net = nn.Sequential(nn.Linear(4, 4), RMSNorm()).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    weights = torch.randn(3, 4, dtype=torch.float64)
    flow = flow_of(net, lambda: (net(x) * weights).sum())
    h = net[0](x).detach().requires_grad_()
    (into,) = torch.autograd.grad(net[1](h), h, weights)
    assert row(flow, "1")["gain"] == pytest.approx(norm(into) / norm(weights), rel=1e-9)


def test_module_that_returns_its_input_has_the_gradient_of_it_and_no_gain_of_its_own():
    net = nn.Sequential(nn.Linear(3, 3), nn.Identity(), nn.Linear(3, 1))
    flow = flow_of(net, lambda: net(torch.randn(2, 3)).sum())
    assert row(flow, "1")["out_grad_norm"] == row(flow, "0")["out_grad_norm"] > 0
    assert math.isnan(row(flow, "1")["gain"])


# ---------------------------------------------------------------------- ways to write a model


@dataclass
class Output:
    logits: torch.Tensor
    hidden: list[torch.Tensor]


class Wrapped(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.a, self.b = kind, nn.Linear(3, 4), nn.Linear(3, 4)

    def forward(self, *, x):
        a, b = self.a(x), self.b(x)
        return {
            "tuple": (a, (b, None)),
            "dict": {"a": a, "rest": {"b": b}},
            "dataclass": Output(a, [b]),
        }[self.kind]


@pytest.mark.parametrize("kind", ["tuple", "dict", "dataclass"])
def test_outputs_in_containers_add_up(kind):
    net = nn.ModuleDict({"net": Wrapped(kind)})

    def run():
        out = net["net"](x=torch.ones(2, 3))
        if kind == "tuple":
            return 3 * out[0].sum() + 4 * out[1][0].sum()
        if kind == "dict":
            return 3 * out["a"].sum() + 4 * out["rest"]["b"].sum()
        return 3 * out.logits.sum() + 4 * out.hidden[0].sum()

    flow = flow_of(net, run)
    assert row(flow, "net.a")["out_grad_norm"] == pytest.approx(3 * math.sqrt(8))
    assert row(flow, "net.b")["out_grad_norm"] == pytest.approx(4 * math.sqrt(8))
    assert row(flow, "net")["out_grad_norm"] == pytest.approx(5 * math.sqrt(8))


def test_in_place_operations_after_a_module_are_left_alone():
    values = []
    for in_place in (False, True):
        torch.manual_seed(0)
        net = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 1)})
        x = torch.randn(3, 4)

        def run(net=net, x=x, in_place=in_place):
            h = net["a"](x)
            if in_place:
                h *= 2
                h += x
                h.relu_()
            else:
                h = (2 * h + x).relu()
            return net["b"](h).square().sum()

        values.append(flow_of(net, run).modules)
    same(*values)
    assert "relu(a)" in values[0].names


def test_reused_module_adds_up_and_keeps_its_calls():
    net = nn.ModuleDict({"enc": nn.Linear(3, 4), "act": nn.ReLU()})
    one, two = torch.randn(2, 3), torch.randn(5, 3)
    outs = []

    def run():
        outs.extend(net["act"](net["enc"](x)) for x in (one, two))
        return outs[0].sum() + 2 * outs[1].sum()

    flow = flow_of(net, run)
    assert row(flow, "act")["calls"] == 2
    assert row(flow, "act")["out_grad_norm"] == pytest.approx(math.sqrt(8 + 4 * 20))
    both = torch.cat(outs)
    assert row(flow, "act")["zero_fraction"] == pytest.approx(float((both == 0).float().mean()))
    assert row(flow, "act")["active"].tolist() == (both > 0).any(0).tolist()
    assert flow.time_profiles == ()  # twice, but not fed its own output


def test_order_of_rows_is_the_order_of_outputs():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(3, 1), nn.Linear(3, 3)

        def forward(self, x):
            return self.last(functional.relu(self.first(x)))

    net = Backwards()
    names = flow_of(net, lambda: net(torch.randn(2, 3)).sum()).modules.names
    assert names == ("first", "relu(first)", "last", "(root)")


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_counts_once(reentrant):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inlet, self.outlet = nn.Linear(4, 4), nn.Linear(4, 1)
            self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4))
            self.cheap = False

        def forward(self, x):
            h = self.inlet(x)
            h = checkpoint(self.body, h, use_reentrant=reentrant) if self.cheap else self.body(h)
            return self.outlet(h)

    flows, grads = [], []
    net, x = Net(), torch.randn(6, 4)
    for net.cheap in (False, True):
        net.zero_grad()
        torch.manual_seed(1)
        flows.append(flow_of(net, lambda: net(x).square().sum()).modules)
        grads.append([p.grad.clone() for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    plain, cheap = ({n: i for i, n in enumerate(f.names)} for f in flows)
    assert set(plain) == set(cheap)
    for name, i in plain.items():
        j = cheap[name]
        assert flows[1].calls[j] == 1
        assert flows[1].out_grad_norm[j] == pytest.approx(flows[0].out_grad_norm[i], rel=1e-6)
        for table in ("gain", "zero_fraction", "never_active"):
            a, b = getattr(flows[0], table)[i], getattr(flows[1], table)[j]
            assert b == pytest.approx(a, rel=1e-6, nan_ok=True), (name, table)


def test_retained_graph_counts_each_backward_pass():
    net = nn.Linear(3, 2)
    probe = armed(net)
    loss = net(torch.randn(4, 3)).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    flow = read(probe)
    assert row(flow, "(root)")["out_grad_norm"] == pytest.approx(math.sqrt(16))
    assert row(flow, "(root)")["calls"] == 1


def test_frozen_front_is_silent_and_frozen_middle_is_not():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    net[0].requires_grad_(False)
    net[2].requires_grad_(False)
    flow = flow_of(net, lambda: net(torch.randn(2, 3)).sum())
    assert flow.modules.names == ("1", "2", "3", "(root)")
    assert row(flow, "2")["gain"] > 0


def test_output_that_is_a_parameter_leaves_no_hook_on_it():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(2, 3))

        def forward(self):
            return self.table

    net = nn.ModuleDict({"p": Positions(), "out": nn.Linear(3, 1)})
    flow = flow_of(net, lambda: net["out"](net["p"]()).sum())
    assert row(flow, "p")["out_grad_norm"] == pytest.approx(norm(net["p"].table.grad))
    assert not net["p"].table._backward_hooks


# ---------------------------------------------------------------------- which passes count


def test_gradient_penalty_is_not_counted():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    x = torch.randn(5, 4, requires_grad=True)
    probe = armed(net)
    out = net(x).sum()
    (grad,) = torch.autograd.grad(out, x, create_graph=True)
    assert not probe._listeners.arrived
    torch.autograd.grad(out, x, retain_graph=True)  # a saliency map
    torch.autograd.grad(out, list(net.parameters()), retain_graph=True)
    assert not probe._listeners.arrived
    (out + grad.square().sum()).backward()
    flow = read(probe)
    assert row(flow, "2")["out_grad_norm"] == pytest.approx(math.sqrt(5))
    assert row(flow, "2")["calls"] == 1
    h = net[1](net[0](x))
    (grad,) = torch.autograd.grad(net[2](h).sum(), x, create_graph=True)
    h.retain_grad()
    (net[2](h).sum() + grad.square().sum()).backward()
    assert row(flow, "1")["out_grad_norm"] == pytest.approx(norm(h.grad), rel=1e-5)


def test_backward_with_create_graph_is_a_backward_pass():
    net = nn.Linear(3, 2)
    probe = armed(net)
    net(torch.randn(4, 3)).square().sum().backward(create_graph=True)
    assert row(read(probe), "(root)")["out_grad_norm"] > 0
    net.zero_grad()  # breaks the cycle that create_graph makes


def test_announced_passes_alone_count_where_the_loop_announces_them():
    net = nn.Linear(3, 2)
    gate = BackwardGate(net)
    probe = FlowProbe(net, refuse, gate)
    gate.reset(announced=True)
    probe.arm()
    net(torch.randn(4, 3)).sum().backward()
    assert not probe._listeners.arrived
    loss = net(torch.randn(4, 3)).sum()
    gate.enter()
    loss.backward()
    gate.leave()
    assert row(read(probe), "(root)")["out_grad_norm"] == pytest.approx(math.sqrt(8))


def test_without_gradient_nothing_is_seen():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    probe = armed(net)
    with torch.no_grad():
        net(torch.randn(2, 3))
    with torch.inference_mode():
        net(torch.randn(2, 3))
    net(torch.randn(2, 3))  # a forward pass without a backward pass
    assert read(probe) is None


# ---------------------------------------------------------------------- harmless


def test_removal_silences_a_running_graph():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    probe = armed(net)
    loss = net(torch.randn(2, 3)).sum()
    probe.disarm()
    loss.backward()
    assert not probe._listeners.arrived
    assert read(probe) is None


def test_copies_and_pickles_of_an_armed_model_are_inert():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    probe = armed(net)
    twins = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    buffer = io.BytesIO()
    torch.save(net, buffer)
    for twin in twins:
        twin(torch.randn(2, 3)).sum().backward()
    assert not probe._listeners.arrived
    assert read(probe) is None


def test_failure_inside_a_hook_stays_there():
    failures = []
    net = nn.Linear(3, 1)
    probe = FlowProbe(net, failures.append, BackwardGate(net))
    probe.arm()
    probe._listeners.at_output = None  # ours is broken
    net(torch.randn(2, 3)).sum().backward()
    assert net.weight.grad is not None
    assert isinstance(failures[0], TypeError)


def test_graph_is_freed_with_its_output_and_no_tensor_is_kept():
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.MultiheadAttention(3, 1))
    probe = armed(net[:2])
    gc.collect()
    gc.disable()
    try:
        hidden = net[:2](torch.randn(2, 3))  # saved by the graph
        probe_of_attention = armed(net[2])
        out = net[2](hidden, hidden, hidden)[0].sum()
        gone = weakref.ref(hidden)
        del hidden
        assert gone() is not None
        out.backward()
        del out
        assert gone() is None
    finally:
        gc.enable()
    assert read(probe_of_attention) is not None
    probe.disarm()


def test_hooks_never_wait_for_the_device(monkeypatch):
    """Every way to the host that stalls a GPU passes one of these operators."""
    monkeypatch.setattr(host, "is_at_hand", lambda values: False)
    stalls = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.__name__.split(".")[0] in ("_local_scalar_dense", "nonzero", "equal"):
                stalls.append(func.__name__)
            return func(*args, **(kwargs or {}))

    net = nn.Sequential(
        nn.Linear(4, 4), nn.ReLU(), nn.GELU(), nn.Tanh(), nn.MultiheadAttention(4, 1), OwnHead()
    )
    probe = armed(net)
    x = torch.randn(3, 4)
    with Watch():
        h = net[:4](x)
        net[5](net[4](h, h, h)[0]).sum().backward()
        reading = probe.take()
    assert stalls == []
    flow = reading.finish(Host().fetch(reading.tensors), 1.0)
    assert "relu in 5" in flow.modules.names


class OwnHead(nn.Module):
    def forward(self, x):
        return functional.relu(x) * torch.sigmoid(x)


def test_exception_in_a_forward_pass_leaves_the_rest_in_order():
    class Moody(nn.Module):
        def forward(self, x):
            if x.shape[0] == 1:
                raise ValueError("one")
            return x * 2

    net = nn.Sequential(nn.Linear(3, 3), Moody(), nn.Linear(3, 1))
    probe = armed(net)
    with pytest.raises(ValueError, match="one"):
        net(torch.randn(1, 3))
    assert probe._stack == []
    net(torch.randn(2, 3)).sum().backward()
    assert row(read(probe), "1")["gain"] == pytest.approx(2.0)


def test_modules_replaced_between_steps_are_hooked_anew():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    probe = armed(net)
    net(torch.randn(2, 3)).sum().backward()
    assert read(probe).modules.names == ("0", "1", "(root)")
    net[1] = nn.Tanh()
    probe.arm()
    net(torch.randn(2, 3)).sum().backward()
    assert read(probe).modules.kinds == ("Linear", "Tanh", "Sequential")


@pytest.mark.parametrize("change", ["in place", "bounds", "forward", "a child", "a hook"])
def test_modules_that_change_between_steps_are_looked_at_anew(change):
    """What is known of a module is found out once, and again as soon as anything of it changed."""

    def net_of(after: bool) -> nn.Module:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Hardtanh(-1.0, 1.0), nn.Linear(6, 4))
        return alter(net) if after else net

    def alter(net: nn.Module) -> nn.Module:
        if change == "in place":
            net[1].inplace = True
        elif change == "bounds":
            net[1].min_val, net[1].max_val = 0.0, 0.3
        elif change == "forward":
            net[1].forward = lambda x: functional.relu_(x)
        elif change == "a child":
            net[2].inner = nn.ReLU()
        else:
            net[1].register_full_backward_hook(lambda *_: None)
        return net

    x = torch.randn(4, 2, 8)
    net, fresh = net_of(False), net_of(True)
    probe = armed(net)
    net(x).square().sum().backward()
    assert read(probe) is not None
    alter(net)
    probe.arm()
    net(x).square().sum().backward()
    found = read(probe).modules
    same(found, flow_of(fresh, lambda: fresh(x).square().sum()).modules)
    assert found.units[1] == (3 if change == "bounds" else 0)


def test_hooks_of_the_user_on_gradients_change_nothing_of_what_is_seen():
    """Channels are told from the module before, which such a hook puts a function behind."""
    x, flows = torch.randn(4, 2, 8), []
    for hooked in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Conv1d(3, 1, 3))
        if hooked:
            net[1].register_full_backward_hook(lambda *_: None)
        flows.append(flow_of(net, lambda net=net: net(x).square().sum()).modules)
    same(*flows)
    assert flows[1].units[1] == 3


def test_unwatched_modules_are_left_out():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    probe = armed(net, watches=lambda name: name == "1")
    net(torch.randn(2, 3)).sum().backward()
    assert read(probe).modules.names == ("1",)


def test_several_optimizers_share_a_batch():
    """Both forward passes run before the first step; each optimizer gets its own gradients."""
    net = nn.ModuleDict({"g": nn.Linear(2, 3), "d": nn.Linear(3, 1)})
    probe = armed(net)
    fake = net["g"](torch.ones(4, 2))
    net["d"](fake.detach()).sum().backward()
    first = read(probe, keep=True)
    assert first.modules.names == ("d",)
    (5 * net["d"](fake)).sum().backward()
    second = read(probe)
    assert second.modules.names == ("g", "d")
    assert row(second, "d")["out_grad_norm"] == pytest.approx(5 * row(first, "d")["out_grad_norm"])


# ---------------------------------------------------------------------- compiled


def test_compiled_child_is_seen_from_outside_and_said_once():
    net = nn.Sequential(
        nn.Linear(4, 4),
        torch.compile(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), backend="eager"),
        nn.Linear(4, 1),
    )
    x = torch.randn(3, 4)
    probe = FlowProbe(net, refuse, BackwardGate(net))
    with pytest.warns(GradWatchWarning, match=r"compiled modules \(1\)"):
        probe.arm()
    net(x).square().sum().backward()
    flow = read(probe)
    assert flow.modules.names == ("0", "tanh in 1", "1", "2", "(root)")
    assert row(flow, "1")["kinds"] == "Sequential"
    plain = nn.Sequential(net[0], net[1]._orig_mod, net[2])
    wanted = flow_of(plain, lambda: plain(x).square().sum())
    for name in ("0", "1", "2"):
        assert row(flow, name)["out_grad_norm"] == pytest.approx(row(wanted, name)["out_grad_norm"])
    assert row(flow, "1")["gain"] == pytest.approx(
        row(wanted, "0")["out_grad_norm"] / row(wanted, "1")["out_grad_norm"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probe.arm()  # it is not said a second time
    probe.disarm()


@pytest.mark.skipif(
    torch.__version__.startswith("2.4."),
    reason="torch 2.4 runs hooks on modules inside compiled functions; the current one does not",
)
def test_hooks_do_not_break_the_graph_of_a_function_that_calls_modules():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    probe = armed(net)
    step = torch.compile(lambda x: net(x).sum(), backend=backend)
    step(torch.randn(3, 4)).backward()
    assert len(graphs) == 1
    assert read(probe) is None


def test_scripted_child_is_skipped():
    net = nn.Sequential(nn.Linear(4, 4), torch.jit.script(nn.Tanh()), nn.Linear(4, 1))
    with pytest.warns(GradWatchWarning, match="compiled"):
        probe = armed(net)
    net(torch.randn(3, 4)).sum().backward()
    # Its nodes of the graph are seen from the module behind it.
    assert read(probe).modules.names == ("0", "tanh(0)", "2", "(root)")


# ---------------------------------------------------------------------- through time


class Loop(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell, self.head = cell, nn.Linear(5, 1)
        self.double()

    def forward(self, x):
        state, self.states = None, []
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            h = state[0] if isinstance(state, tuple) else state
            if h.requires_grad:
                h.retain_grad()
            self.states.append(h)
        return self.head(h)


class OwnCell(nn.Module):
    def __init__(self, inputs, hidden):
        super().__init__()
        self.hidden = hidden
        self.i2h, self.h2h = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)

    def forward(self, x, h):
        if h is None:
            h = x.new_zeros(x.shape[0], self.hidden)
        return torch.tanh(self.i2h(x) + self.h2h(h))


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell, OwnCell])
def test_cell_in_a_loop_has_a_time_profile(cell):
    net = Loop(cell(3, 5))
    flow = flow_of(net, lambda: net(torch.randn(4, 9, 3, dtype=torch.float64)).square().sum())
    (profile,) = flow.time_profiles
    assert profile.module == "cell"
    wanted = [norm(h.grad) for h in net.states]
    assert profile.grad_norm == pytest.approx(wanted, rel=1e-9)
    assert row(flow, "cell")["calls"] == 9


def test_time_profiles_of_micro_batches_add_up():
    net = Loop(nn.GRUCell(3, 5))
    x, y = torch.randn(2, 4, 6, 3, dtype=torch.float64)
    probe = armed(net)
    total = np.zeros(6)
    for batch in (x, y):
        net(batch).sum().backward()
        total += np.square([norm(h.grad) for h in net.states])
    (profile,) = read(probe).time_profiles
    assert profile.grad_norm == pytest.approx(np.sqrt(total), rel=1e-9)


def test_activation_used_again_and_again_is_not_recurrent():
    net = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3), "act": nn.Tanh()})

    def run():
        act = net["act"]
        return act(net["b"](act(net["a"](torch.randn(2, 3))))).sum()

    flow = flow_of(net, run)
    assert row(flow, "act")["calls"] == 2
    assert flow.time_profiles == ()
