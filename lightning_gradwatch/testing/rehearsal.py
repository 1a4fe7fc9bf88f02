"""Real training of a small network, in numpy: samples as true as a run's, within a blink.

What detectors are shown is full of correlations that no made-up numbers have: gradients shrink with
the loss, updates follow gradients, units die one after the other. So this network is trained by
backpropagation, written out, and tells what our hooks would tell of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from lightning_gradwatch.layers import Layout
from lightning_gradwatch.sample import Bools, Floats, Flow, Sample
from lightning_gradwatch.testing.flows import make_flow
from lightning_gradwatch.testing.samples import deliver, make_sample

#: Class of an activation, by what `rehearse` calls it.
KINDS = {"relu": "ReLU", "tanh": "Tanh", "sigmoid": "Sigmoid"}

_INPUTS, _CLASSES, _BATCH = 8, 3, 32


def is_measured(step: int) -> bool:
    """Whether a step has flow and update by default: the first ten, then every 50th."""
    return step < 10 or step % 50 == 0


@np.errstate(all="ignore")
def rehearse(
    activation: str = "relu",
    *,
    depth: int = 5,
    width: int = 12,
    weight_scale: float = 1.0,
    bias: float = 0.0,
    lr: float = 0.1,
    steps: int = 300,
    seed: int = 0,
) -> list[Sample]:
    """Train a classifier of three noisy clusters by plain gradient descent and write it down.

    Its layers are `hidden0`, `hidden1`, ..., `output`; activations are `act0`, `act1`, ....

    Args:
        activation: `"relu"`, `"tanh"` or `"sigmoid"`.
        depth: Hidden layers.
        width: Units in each.
        weight_scale: Initial weights, as a multiple of He's (for ReLU) or LeCun's.
        bias: Initial bias of the hidden layers; far below zero, ReLU units are dead.
        lr: Learning rate.
        steps: Optimizer steps.
        seed: Of weights and data.

    Returns:
        One sample for each step. The first ten and every 50th have flow, and the step after
        them has their update.

    Raises:
        ValueError: The activation is none of the three.

    Example:
        >>> samples = rehearse("sigmoid", depth=8, steps=60)
        >>> early, late = samples[-1].layer_grad_norm[[0, -1]]
        >>> bool(early < 1e-4 * late)
        True
    """
    if activation not in KINDS:
        raise ValueError(f"activation must be one of {', '.join(KINDS)}, got {activation!r}")
    net = _Network(activation, depth, width, weight_scale, bias, np.random.default_rng(seed))
    return deliver([net.step(t, lr) for t in range(steps)])


@dataclass
class _Network:
    activation: str
    depth: int
    width: int
    weight_scale: float
    bias: float
    rng: np.random.Generator
    weights: list[Floats] = field(init=False)
    biases: list[Floats] = field(init=False)
    layout: Layout = field(init=False)
    centres: Floats = field(init=False)
    names: list[str] = field(init=False)
    direction: Floats | None = None

    def __post_init__(self) -> None:
        sizes = [_INPUTS, *[self.width] * self.depth, _CLASSES]
        gain = 2.0 if self.activation == "relu" else 1.0
        self.weights = [
            self.rng.normal(size=(n, m)) * self.weight_scale * (gain / n) ** 0.5
            for n, m in pairwise(sizes)
        ]
        self.biases = [np.full(m, self.bias) for m in sizes[1:]]
        self.biases[-1][:] = 0.0
        self.centres = self.rng.normal(size=(_CLASSES, _INPUTS))
        self.names = [f"hidden{i}" for i in range(self.depth)] + ["output"]
        layers = range(len(self.names))
        self.layout = Layout(
            parameters=tuple(f"{n}.{kind}" for n in self.names for kind in ("weight", "bias")),
            layers=tuple(self.names),
            layer_of=tuple(i for i in layers for _ in range(2)),
            numel=tuple(n for i in layers for n in (self.weights[i].size, self.biases[i].size)),
            ndim=(2, 1) * len(self.names),
            kinds=("Linear",) * len(self.names),
        )

    def step(self, step: int, lr: float) -> Sample:
        """Make one step and return what was seen of it."""
        labels = self.rng.integers(_CLASSES, size=_BATCH)
        inputs = [self.centres[labels] + 0.5 * self.rng.normal(size=(_BATCH, _INPUTS))]
        for i in range(self.depth):
            inputs.append(self._act(inputs[-1] @ self.weights[i] + self.biases[i]))
        loss, error = _cross_entropy(inputs[-1] @ self.weights[-1] + self.biases[-1], labels)

        outward: dict[str, float] = {"output": _norm(error)}
        gain: dict[str, float] = {}
        gradients: list[Floats] = []
        for i in reversed(range(len(self.names))):
            gradients[:0] = [inputs[i].T @ error, error.sum(axis=0)]
            back = error @ self.weights[i].T
            gain[self.names[i]] = _ratio(_norm(back), outward[self.names[i]])
            if i > 0:
                act = f"act{i - 1}"
                outward[act] = _norm(back)
                error = back * self._slope(inputs[i])
                outward[self.names[i - 1]] = _norm(error)
                gain[act] = _ratio(outward[self.names[i - 1]], outward[act])
        measured = is_measured(step)
        return make_sample(
            step,
            {n: _norm(g) for n, g in zip(self.layout.parameters, gradients, strict=True)},
            layout=self.layout,
            loss=loss,
            lr=lr,
            flow=self._flow(inputs[1:], outward, gain) if measured else None,
            **self._move(gradients, lr, measured),
        )

    def _move(self, gradients: list[Floats], lr: float, measured: bool) -> dict[str, Any]:
        """Take the step; return what it did to the weights, if that is measured."""
        weights = [w for pair in zip(self.weights, self.biases, strict=True) for w in pair]
        before = [_norm(w) for w in weights]
        for weight, gradient in zip(weights, gradients, strict=True):
            weight -= lr * gradient
        if not measured:
            return {}
        before_last, self.direction = self.direction, np.concatenate([g.ravel() for g in gradients])
        agreement = float("nan")
        if before_last is not None:
            lengths = _norm(before_last) * _norm(self.direction)
            agreement = _ratio(float(before_last @ self.direction), lengths)
        return {
            "agreement": agreement,
            "weight_norm": before,
            "update_norm": [lr * _norm(g) for g in gradients],
            "descent": [lr * _norm(g) ** 2 for g in gradients],
        }

    def _flow(
        self, outputs: list[Floats], outward: dict[str, float], gain: dict[str, float]
    ) -> Flow:
        acts = [f"act{i}" for i in range(self.depth)]
        order = [n for i in range(self.depth) for n in (f"hidden{i}", acts[i])] + ["output"]
        relu = self.activation == "relu"
        flat = {
            a: self._slope(x) < 0.05 * self._steepest for a, x in zip(acts, outputs, strict=True)
        }
        active: dict[str, Bools] = {
            a: np.asarray((x > 0).any(axis=0)) for a, x in zip(acts, outputs, strict=True)
        }
        zero = {a: float((x == 0).mean()) for a, x in zip(acts, outputs, strict=True)}
        bad = {a: float((~np.isfinite(x)).mean()) for a, x in zip(acts, outputs, strict=True)}
        return make_flow(
            {name: outward[name] for name in order},
            kinds=dict.fromkeys(acts, KINDS[self.activation]),
            gain=gain,
            zero_fraction=zero,
            nonfinite_fraction=bad,
            saturated_fraction=None if relu else {a: float(f.mean()) for a, f in flat.items()},
            active=active if relu else None,
        )

    @property
    def _steepest(self) -> float:
        return 0.25 if self.activation == "sigmoid" else 1.0

    def _act(self, x: Floats) -> Floats:
        if self.activation == "relu":
            return np.maximum(x, 0.0)
        if self.activation == "tanh":
            return np.tanh(x)
        return np.asarray(1.0 / (1.0 + np.exp(-x)), np.float64)

    def _slope(self, output: Floats) -> Floats:
        """Return the derivative, from the activation's output."""
        if self.activation == "relu":
            return np.asarray(output > 0, np.float64)
        if self.activation == "tanh":
            return 1.0 - output**2
        return output * (1.0 - output)


def _norm(x: Floats) -> float:
    return float(np.linalg.norm(x))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole != 0 else float("nan")


def _cross_entropy(
    logits: Floats, labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
) -> tuple[float, Floats]:
    """Return the mean loss and its gradient with respect to the logits."""
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True)
    loss = float((np.log(total)[:, 0] - shifted[rows, labels]).mean())
    error = np.exp(shifted) / total
    error[rows, labels] -= 1.0
    return loss, error / len(labels)
