"""A snapshot brings everything back bit for bit: weights, buffers, optimizer and scaler state."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn, optim

from lightning_gradwatch.actions.snapshot import Snapshot, Trained
from tests.actions.steps import same, through_checkpoint
from tests.actions.test_skip_step import OPTIMIZERS


def network(affine: bool = True) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(4, affine=affine)
    net = nn.Sequential(nn.Linear(3, 4, bias=False), norm, nn.Linear(4, 2, bias=False))
    net.register_buffer("own", torch.zeros(2), persistent=False)
    return net


def train(net: nn.Module, optimizer: optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        net.own += 1  # type: ignore[operator]
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


def everything(net: nn.Module, optimizer: optim.Optimizer) -> Any:
    tensors = [*net.parameters(), *net.buffers()]
    states = [optimizer.state[p] for p in net.parameters() if optimizer.state.get(p)]
    return copy.deepcopy(([t.detach() for t in tensors], states))


@pytest.mark.parametrize("begun", [0, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_if_nothing_had_come_between(name: str, begun: int) -> None:
    net = network(affine=name != "Muon")  # which takes matrices only
    optimizer = OPTIMIZERS[name](net.parameters())
    trained = Trained(net, [optimizer])
    train(net, optimizer, range(begun))
    before, kept = everything(net, optimizer), Snapshot.take(trained, begun)
    train(net, optimizer, range(begun, begun + 3))
    wanted = everything(net, optimizer)
    for p in net.parameters():
        p.data.fill_(torch.nan)
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor):
                value.fill_(torch.nan)
    kept = Snapshot.from_dict(through_checkpoint(kept.to_dict()))
    assert kept.write_back(trained) == ()
    assert same(everything(net, optimizer), before)
    train(net, optimizer, range(begun, begun + 3))
    assert same(everything(net, optimizer), wanted)


@pytest.mark.parametrize("begun", [0, 2])
def test_lbfgs_in_the_middle_of_its_step(begun: int) -> None:
    net = network()
    lbfgs = optim.LBFGS(net.parameters(), lr=0.1, max_iter=4)
    trained = Trained(net, [lbfgs])
    kept: list[Snapshot] = []
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))

    def step(back: bool) -> None:
        def closure() -> torch.Tensor:
            lbfgs.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            if back:
                kept[0].write_back(trained)
                for p in net.parameters():
                    p.grad = None
            return loss.detach()

        lbfgs.step(closure)

    for _ in range(begun):
        step(back=False)
    before = [p.detach().clone() for p in net.parameters()]
    kept.append(Snapshot.take(trained, 0))
    step(back=False)
    step(back=True)
    assert same([p.detach() for p in net.parameters()], before)
    step(back=False)
    assert not same([p.detach() for p in net.parameters()], before)


def test_a_scaler_goes_back_too() -> None:
    net = network()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.ones(1))
    kept = Snapshot.take(Trained(net, [], scaler), 0)
    scaler.update(2.0)
    kept.write_back(Trained(net, [], scaler))
    assert scaler.get_scale() == 1024.0


def test_what_was_added_since_keeps_its_values_and_is_named() -> None:
    net = network()
    adam = optim.Adam(net.parameters(), lr=0.1)
    trained = Trained(net, [adam])
    train(net, adam, range(2))
    kept, first = Snapshot.take(trained, 2), net[0].weight.detach().clone()
    net.add_module("late", nn.Linear(2, 2, bias=False))
    adam.add_param_group({"params": [net.late.weight]})
    outside = nn.Parameter(torch.ones(1))
    adam.add_param_group({"params": [outside]})
    train(net, adam, range(2, 4))
    late = net.late.weight.detach().clone()
    assert kept.write_back(trained) == ("late.weight", "(optimizer 0, parameter 5)")
    assert torch.equal(net.late.weight, late)
    assert torch.equal(net[0].weight, first)
    assert not adam.state[net.late.weight]


def test_learning_rates_are_not_part_of_it() -> None:
    net = network()
    sgd = optim.SGD(net.parameters(), lr=0.1)
    kept = Snapshot.take(Trained(net, [sgd]), 0)
    sgd.param_groups[0]["lr"] = 0.01
    kept.write_back(Trained(net, [sgd]))
    assert sgd.param_groups[0]["lr"] == 0.01


def test_a_backward_pass_that_is_still_to_come_does_not_stumble() -> None:
    net = network()
    kept = Snapshot.take(Trained(net), 0)
    loss = net(torch.ones(8, 3)).sum()
    kept.write_back(Trained(net))
    loss.backward()


def test_memory_is_what_the_tensors_take() -> None:
    net = network()
    adam = optim.Adam(net.parameters())
    trained = Trained(net, [adam])
    train(net, adam, range(1))
    numbers = sum(p.numel() for p in net.parameters())
    buffers = sum(b.nbytes for b in net.buffers())
    steps = 4 * len(list(net.parameters()))
    assert trained.nbytes == Snapshot.take(trained, 1).nbytes == 4 * 3 * numbers + buffers + steps


def test_two_weights_that_are_one_are_kept_once() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert len(Snapshot.take(Trained(net), 0).tensors) == 3
