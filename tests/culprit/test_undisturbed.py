"""After it everything is as before, to the last bit."""

from __future__ import annotations

import copy
import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_gradwatch.culprit.undisturbed import undisturbed


class Hoarder(nn.Module):
    """Changes about everything that a forward pass can change."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.spectral = nn.utils.spectral_norm(nn.Linear(4, 4))
        self.teacher = copy.deepcopy(self.net[0]).requires_grad_(False)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("queue", torch.zeros(3, 4))
        self.calls, self.outputs, self.state = 0, [], {"seen": [0]}
        self.plain = torch.zeros(4)
        self.array = np.zeros(3)
        self.rng = random.Random(0)
        self.numpy_rng = np.random.default_rng(0)
        self.torch_rng = torch.Generator().manual_seed(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.fresh = x
        self.count += 1
        self.queue = torch.cat([self.queue[1:], x[:1].detach()])
        self.plain += 1
        self.array += 1
        x = x + self.rng.random() + self.numpy_rng.random()
        x = x + torch.rand(4, generator=self.torch_rng)
        x = x + random.random() + np.random.rand()  # noqa: NPY002  # the global one is meant
        out = self.spectral(self.net(x))
        self.outputs.append(out)
        self.state["seen"][0] += 1
        self.state["new"] = out
        for own, other in zip(self.teacher.parameters(), self.net[0].parameters(), strict=True):
            own.data.mul_(0.9).add_(other.data, alpha=0.1)
        with torch.no_grad():
            self.net[0].weight.clamp_(-0.01, 0.01)
        self.frozen.requires_grad_(True)
        self.eval()
        return out.sum()


def everything(module: nn.Module) -> dict[str, Any]:
    return {
        "state": {k: v.clone() for k, v in module.state_dict().items()},
        "grads": {n: None if p.grad is None else p.grad.clone() for n, p in
                  module.named_parameters()},
        "requires": {n: p.requires_grad for n, p in module.named_parameters()},
        "ids": [id(t) for t in (*module.parameters(), *module.buffers())],
        "modes": [m.training for m in module.modules()],
        "names": [sorted(vars(m)) for m in module.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in module.modules()],
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False)["state"],  # noqa: NPY002
        "plain": module.plain.clone(),
        "array": module.array.copy(),
        "own": (module.calls, len(module.outputs), copy.deepcopy(module.state)),
        "rngs": (module.rng.getstate(), module.numpy_rng.bit_generator.state,
                 module.torch_rng.get_state()),
    }  # fmt: skip


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return bool((a == b).all())
    return bool(a == b)


@pytest.mark.parametrize("with_gradients", [False, True])
def test_nothing_is_left(with_gradients):
    module = Hoarder()
    if with_gradients:
        for parameter in module.net.parameters():
            parameter.grad = torch.randn_like(parameter)
    before = everything(module)
    with undisturbed(module):
        module(torch.randn(8, 4)).backward()
        for parameter in module.parameters():
            parameter.grad = None
        torch.autograd.set_detect_anomaly(True)
    after = everything(module)
    for key in before:
        assert same(before[key], after[key]), key
    assert not torch.is_anomaly_enabled()
    pickle.dumps(module.net)


def test_also_after_an_error():
    module = Hoarder()
    before = everything(module)
    with pytest.raises(RuntimeError, match="shapes"), undisturbed(module):
        module.net[0](module(torch.randn(8, 4)).reshape(1, 1))
    assert same(before, everything(module))


def test_mode():
    module = Hoarder().eval()
    module.net.train()
    modes = [m.training for m in module.modules()]
    with undisturbed(module, mode=True):
        assert all(m.training for m in module.modules())
    assert [m.training for m in module.modules()] == modes


def test_versions_that_autograd_checks_are_left():
    module = Hoarder()
    module.requires_grad_(True)
    loss = (module.net[0].weight ** 2).sum()
    with undisturbed(module):
        with torch.no_grad():
            module.teacher.weight.data.add_(1)
        module.net[0].weight.data.mul_(2)
    loss.backward()


def test_torchmetrics():
    torchmetrics = pytest.importorskip("torchmetrics")
    module = nn.ModuleDict({"mean": torchmetrics.MeanMetric(), "cat": torchmetrics.CatMetric()})
    for metric in module.values():
        metric.update(torch.tensor(2.0))
    with undisturbed(module):
        for metric in module.values():
            metric(torch.tensor(7.0))
            metric.compute()
    assert [float(metric.compute()) for metric in module.values()] == [2.0, 2.0]
    assert [metric.update_count for metric in module.values()] == [1, 1]


def test_lazy_modules_are_refused():
    with pytest.raises(ValueError, match="lazy"), undisturbed(nn.LazyLinear(3)):
        pass
