"""Which rows of a flow lie inside the network: before its last layer that learns; and that one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lightning_gradwatch.sample import ModuleFlow, Sample

#: Output force (see below) from which a model is taken to have learnt something.
FITTED = 2.7

#: Classes that own a matrix.
_MATRICES = ("Linear", "Bilinear", "Conv1d", "Conv2d", "Conv3d")


def last_layer(sample: Sample, modules: ModuleFlow) -> int:
    """Return the row of the last layer on the way to this optimizer's loss; -1 if there is none.

    It has a gradient of the optimizer, or is a matrix that nobody trains under its own name: one
    that is frozen, or tied to another.
    """
    layers = sample.layout.layers
    learning = {n for n, there in zip(layers, sample.layer_has_grad, strict=True) if there}
    if not learning.intersection(modules.names):
        return -1
    return max(
        i
        for i, (name, kind) in enumerate(zip(modules.names, modules.kinds, strict=True))
        if name in learning or (kind in _MATRICES and name not in layers)
    )


def output_force(sample: Sample, modules: ModuleFlow) -> float:
    """Return |output| x |gradient at the output| / |loss| of the last layer; NaN if unknown.

    What a model that knows nothing puts out has little to do with its loss: about 1, whatever the
    unit of the loss. One that fits its data stands far from zero for what is left of the loss: it
    reaches 3 to 100.

    Example:
        >>> from lightning_gradwatch.testing import make_flow, make_sample
        >>> flow = make_flow({"head": 0.5}, out_rms={"head": 2.0}, vectors={"head": 16})
        >>> sample = make_sample(0, {"head.weight": 1.0}, loss=0.1, flow=flow)
        >>> output_force(sample, flow.modules)
        40.0
    """
    last = last_layer(sample, modules)
    if last < 0 or sample.loss == 0:
        return math.nan
    force = modules.out_rms[last] * modules.out_grad_norm[last] * math.sqrt(modules.vectors[last])
    return float(force) / abs(sample.loss)


def inner_rows(sample: Sample, modules: ModuleFlow) -> list[int]:
    """Return the rows before the last layer with a gradient of this sample's optimizer.

    What follows it is the output: a sigmoid that is certain of its answer is full on purpose.

    Example:
        >>> from lightning_gradwatch.testing import make_flow, make_sample
        >>> flow = make_flow(
        ...     {"fc": 1.0, "act": 1.0, "head": 1.0, "prob": 1.0},
        ...     kinds={"act": "Tanh", "prob": "Sigmoid"},
        ... )
        >>> sample = make_sample(0, {"fc.weight": 1.0, "head.weight": 1.0}, flow=flow)
        >>> [flow.modules.names[i] for i in inner_rows(sample, flow.modules)]
        ['fc', 'act']
    """
    last = last_layer(sample, modules)
    # A recurrent module's output is its state, whatever follows.
    return [
        int(i)
        for i in np.flatnonzero(modules.leaf)
        if i < last or modules.kinds[i].startswith("RNN")
    ]


def feeding_layers(sample: Sample, modules: ModuleFlow, rows: Sequence[int]) -> tuple[str, ...]:
    """Return the layer with a weight matrix that feeds each row, each once, in order.

    Example:
        >>> from lightning_gradwatch.testing import make_flow, make_sample
        >>> flow = make_flow({"fc": 1.0, "norm": 1.0, "act": 1.0, "head": 1.0})
        >>> sample = make_sample(0, {"fc.weight": 1.0, "norm.bias": 1.0})
        >>> feeding_layers(sample, flow.modules, [2])
        ('fc',)
    """
    layout = sample.layout
    known = {layout.layers[i] for i in layout.layer_index[layout.is_matrix]} or set(layout.layers)
    found: dict[str, None] = {}
    for row in rows:
        before = (name for name in reversed(modules.names[: row + 1]) if name in known)
        found.update(dict.fromkeys([next(before, "")]))
    found.pop("", None)
    return tuple(found)
