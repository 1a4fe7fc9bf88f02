"""torch.compile: the same graphs with us as without, norms as ever, the flow from outside only."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from lightning_gradwatch import GradientWatcher, GradWatch, GradWatchWarning
from tests.trainer.models import data, fit, float64_norms, lightning, mlp

#: Looks into the steps 0 to 9, 15 and 30, so that compiled code meets hooks that come and go.
EVERY = 15


class Trains(lightning().LightningModule):
    """Takes no `self.log`, which does not compile, with or without us."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.truth: list[dict[str, float]] = []

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (self.net(x) - y).square().mean()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.loss(*batch)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.truth.append(float64_norms(self))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.05)


def compiled(module: Any) -> Any:
    return torch.compile(module, backend="eager")


def whole_net() -> Any:
    return Trains(compiled(mlp(8, 8, 8, 1)))


class Net(nn.Module):
    """Torch compiles no frames of its own: a bare `Sequential` would stay eager."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).tanh())


def in_place() -> Any:
    net = Net()
    net.compile(backend="eager")
    return Trains(net)


def children() -> Any:
    net = mlp(8, 8, 8, 1)
    net[0], net[2] = compiled(net[0]), compiled(net[2])
    return Trains(net)


def nested() -> Any:
    """A compiled part in the middle, parametrised, with an activation as a function."""
    inner = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.ReLU())
    return Trains(nn.Sequential(nn.Linear(8, 8), compiled(inner), nn.Linear(8, 1)))


def lightning_module() -> Any:
    return compiled(Trains(mlp(8, 8, 8, 1)))


def function() -> Any:
    """The modules are eager; it is a function of the user's that is compiled and calls them."""
    model = Trains(mlp(8, 8, 8, 1))
    model.loss = compiled(model.loss)
    return model


HOW: dict[str, Callable[[], Any]] = {
    "net": whole_net, "in place": in_place, "children": children, "nested": nested,
    "LightningModule": lightning_module, "function": function,
}  # fmt: skip


def run(how: str, watch: GradWatch | None) -> tuple[Any, dict[str, Any], list[str]]:
    """Train eight epochs; return the module, what dynamo counted, and what we said."""
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    model = HOW[how]()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, *([watch] if watch else []), max_epochs=8)
    counted = {
        "graphs": counters["stats"]["unique_graphs"],
        "breaks": dict(counters["graph_break"]),
        "frames": dict(counters["frames"]),
    }
    ours = [str(w.message) for w in caught if issubclass(w.category, GradWatchWarning)]
    return getattr(model, "_orig_mod", model), counted, ours


@pytest.mark.parametrize("how", HOW)
def test_no_graph_break_and_no_recompilation_of_ours(how):
    model, counted, said = run(how, watch := GradWatch(reporters=[], flow_every_n_steps=EVERY))
    plain, wanted, _ = run(how, None)
    assert counted == wanted
    assert wanted["graphs"] >= 1
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True)
    )
    assert not any("failed" in text for text in said)
    assert len(said) <= 1
    history = watch.history
    assert not any("_orig_mod" in name for name in (*history.parameters, *history.layers))
    for t, expected in enumerate(model.truth):
        got = dict(zip(history.parameters, history.grad_norm[t], strict=True))
        truth = {name.replace("_orig_mod.", ""): norm for name, norm in expected.items()}
        assert got == pytest.approx(truth, rel=1e-5)
    # What an update changes is measured as ever.
    assert np.isfinite(history.update_ratio[0]).all()


@pytest.mark.parametrize(
    ("how", "told", "shown"),
    [
        ("net", "net", ("net",)),
        ("in place", "net", ()),
        ("children", "net.0, net.2", ("net.0", "net.2", "net.4")),
        ("nested", "net.1", ("net.0", "net.1", "net.2")),
        ("LightningModule", "the model itself", ()),
        ("function", None, ()),
    ],
)
def test_flow_is_seen_from_outside_which_is_said_once(how, told, shown):
    if how == "function" and torch.__version__.startswith("2.4."):
        pytest.skip("torch 2.4 runs hooks on modules there, so there is nothing to say")
    watch = GradWatch(reporters=[], flow_every_n_steps=EVERY)
    _, _, said = run(how, watch)
    assert len(said) == 1
    assert (f"compiled modules ({told})" if told else "called by a compiled function") in said[0]
    for _, flow in watch.history.flow:
        assert set(shown) <= set(flow.modules.names)
        assert not any(name.startswith(f"{told}.") for name in flow.modules.names)
        assert (flow.modules.out_grad_norm > 0).all()
    if shown:
        assert [step for step, _ in watch.history.flow] == [*range(10), 15, 30]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_step_of_a_bare_loop(backend):
    """Forward pass and loss in one compiled function, with hooks that come and go around it."""
    stories = []
    for watched in (True, False):
        torch._dynamo.reset()
        counters.clear()
        torch.manual_seed(0)
        net = mlp(8, 8, 1)
        sgd = torch.optim.SGD(net.parameters(), 0.05)
        step = torch.compile(lambda x, y, net=net: (net(x) - y).square().mean(), backend=backend)
        truth = []
        with GradientWatcher(net, sgd, reporters=[], flow_every_n_steps=EVERY) as watcher:
            for _ in range(7):
                for x, y in data():
                    sgd.zero_grad()
                    loss = step(x, y)
                    loss.backward()
                    truth.append(list(float64_norms(net).values()))
                    if watched:
                        watcher.step(loss=loss)
                    sgd.step()
        graphs = counters["stats"]["unique_graphs"], dict(counters["graph_break"])
        stories.append((graphs, truth))
        if watched:
            assert watcher.history.grad_norm.tolist() == [
                pytest.approx(row, rel=1e-5) for row in truth
            ]
    assert stories[0] == stories[1]
