"""How much the forward pass makes of its input: what initial weights do before they learn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lightning_gradwatch.detectors.inside import last_layer, output_force
from lightning_gradwatch.sample import Sample


@dataclass(frozen=True)
class ForwardReading:
    """One look at the whole forward pass.

    Attributes:
        layer: The last layer.
        output: Root mean square of its output.
        growth: The same over that of the data; over 1 where the data is not of numbers.
        force: See `output_force`: about 1 for outputs that have nothing to do with the targets.
    """

    layer: str
    output: float
    growth: float
    force: float


def read_forward(sample: Sample) -> ForwardReading | None:
    """Compare the size of the outputs with that of the inputs.

    Returns:
        None where that cannot be told: no look into the modules, no last layer, no finite number.

    Example:
        >>> from lightning_gradwatch.testing import make_flow, make_sample
        >>> flow = make_flow(
        ...     {"fc": 1.0, "head": 0.5},
        ...     in_rms={"fc": 1.0}, out_rms={"head": 400.0}, vectors={"head": 1},
        ... )
        >>> sample = make_sample(0, {"fc.weight": 9.0, "head.weight": 1.0}, loss=200.0, flow=flow)
        >>> read_forward(sample)
        ForwardReading(layer='head', output=400.0, growth=400.0, force=1.0)
    """
    modules = sample.flow.modules if sample.flow is not None else None
    last = -1 if modules is None else last_layer(sample, modules)
    if modules is None or last < 0:
        return None
    output, force = float(modules.out_rms[last]), output_force(sample, modules)
    data = modules.in_rms[np.isfinite(modules.in_rms)]
    growth = output / (float(data.max()) or math.nan) if len(data) else output
    if not (math.isfinite(growth) and math.isfinite(force)):
        return None
    return ForwardReading(modules.names[last], output, growth, force)
