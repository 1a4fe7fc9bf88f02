"""The numbers of a rehearsal are those that the hooks take of the same network in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lightning_gradwatch import GradientWatcher, Severity
from lightning_gradwatch.testing import make_flow, rehearse
from lightning_gradwatch.testing.rehearsal import _Network
from lightning_gradwatch.testing.runs import RUNS, run, scaled

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class Recorder:
    def __init__(self):
        self.samples = []

    def update(self, sample):
        self.samples.append(sample)
        return []


def in_torch(activation, steps, lr, **shape):
    """Train the twin of the numpy network, on the same data, under the real watcher."""
    twin = _Network(activation, **shape, rng=np.random.default_rng(0))
    model = nn.Sequential()
    for i, (weight, bias) in enumerate(zip(twin.weights, twin.biases, strict=True)):
        linear = nn.Linear(*weight.shape)
        linear.weight.data = torch.tensor(weight.T, dtype=torch.float32)
        linear.bias.data = torch.tensor(bias, dtype=torch.float32)
        model.add_module(twin.names[i], linear)
        if i < twin.depth:
            model.add_module(f"act{i}", ACTIVATIONS[activation]())
    optimizer, recorder = torch.optim.SGD(model.parameters(), lr), Recorder()
    with GradientWatcher(model, optimizer, detectors=[recorder]) as watcher:
        for _ in range(steps):
            labels = twin.rng.integers(3, size=32)
            x = twin.centres[labels] + 0.5 * twin.rng.normal(size=(32, 8))
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(torch.tensor(x).float()), torch.tensor(labels))
            loss.backward()
            watcher.step(loss=loss)
            optimizer.step()
    return recorder.samples


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_numpy_and_torch_agree(activation):
    shape = {"depth": 4, "width": 12, "weight_scale": 2.0, "bias": -0.5}
    expected = in_torch(activation, 12, 0.3, **shape)
    got = rehearse(activation, lr=0.3, steps=12, **shape)
    close = {"rtol": 2e-3, "atol": 1e-9}  # numpy has float64, torch float32
    for e, g in zip(expected, got, strict=True):
        assert g.layout == e.layout
        assert g.loss == pytest.approx(e.loss, rel=1e-4)
        np.testing.assert_allclose(g.grad_norm, e.grad_norm, **close)
        assert (g.update is None) == (e.update is None)
        if g.update:
            for name in ("step", "weight_norm", "update_norm", "descent", "agreement"):
                np.testing.assert_allclose(
                    getattr(g.update, name), getattr(e.update, name), **close, err_msg=name
                )
        assert (g.flow is None) == (e.flow is None)
        if g.flow:
            # The watcher also has a row for the root.
            rows = [e.flow.modules.names.index(name) for name in g.flow.modules.names]
            assert g.flow.modules.kinds == tuple(e.flow.modules.kinds[i] for i in rows)
            for name in (
                *("out_grad_norm", "gain", "units", "never_active", "saturated_fraction"),
                *("leaf", "functional", "calls"),
            ):
                one, other = getattr(g.flow.modules, name), getattr(e.flow.modules, name)[rows]
                if name == "gain":  # of the first layer there is none: its input needs no gradient
                    one, other = one[1:], other[1:]
                np.testing.assert_allclose(one, other, **close, err_msg=name)


def test_runs_are_what_their_names_say():
    last = {name: [s.loss for s in run(name)][-20:] for name in RUNS}
    assert np.mean(last["a healthy run"]) < 0.1
    assert np.mean(last["a healthy run of tanh"]) < 0.1
    assert np.mean(last["a run whose gradients vanish"]) > 1.0
    assert np.mean(last["a run whose units are dead"]) > 1.0
    assert np.mean(last["a run that stalls"]) > 1.0
    assert np.ptp(last["a run that oscillates"]) > 1.0
    dead = [s.flow.modules for s in run("a run whose units are dead") if s.flow][-1]
    assert (dead.never_active[dead.units > 0] == dead.units[dead.units > 0]).any()
    flat = [s.flow.modules for s in run("a run whose units are saturated") if s.flow][-1]
    assert np.nanmax(flat.saturated_fraction) > 0.8
    assert {s.optimizer for s in run("two optimizers")} == {0, 1}


def test_scaled_scales_what_a_loss_scales():
    plain = run("a run whose gradients vanish")
    for one, other in zip(plain, scaled(plain, 1e5), strict=True):
        np.testing.assert_allclose(other.grad_norm, 1e5 * one.grad_norm)
        assert other.loss == pytest.approx(1e5 * one.loss)
        assert other.lr * other.loss == pytest.approx(one.lr * one.loss)
        if one.update:
            np.testing.assert_array_equal(other.update.update_ratio, one.update.update_ratio)
            np.testing.assert_allclose(other.update.descent, 1e5 * one.update.descent)
        if one.flow:
            np.testing.assert_array_equal(other.flow.modules.gain, one.flow.modules.gain)


def test_unknown_names_show_the_choices():
    with pytest.raises(ValueError, match="relu, tanh, sigmoid, got 'swish'"):
        rehearse("swish")
    with pytest.raises(ValueError, match=r"'fc2' is not among .*: fc1"):
        make_flow({"fc1": 1.0}, gain={"fc2": 1.0})


def test_severities_are_ordered_as_the_trials_take_for_granted():
    assert Severity.INFO < Severity.WARNING < Severity.ERROR
