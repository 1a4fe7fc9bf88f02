"""Lines of the flow: what module hooks saw on the sampled steps, short enough for every step."""

from __future__ import annotations

import math
from typing import Any

from lightning_gradwatch.sample import Floats, ModuleFlow

#: What a line holds of each module, shape (M,). In the first a NaN is a gradient that is NaN; in
#: the others it stands for nothing measured, and is written as null.
FIELDS = (
    "out_grad_norm",
    "gain",
    "zero_fraction",
    "saturated_fraction",
    "nonfinite_fraction",
    "out_rms",
)


class FlowLines:
    """Makes the lines of one segment; names are given once, and again when they change."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] | None = None

    def entry(self, step: int, optimizer: int, flow: ModuleFlow) -> dict[str, Any]:
        """Return the line of one step.

        Example:
            >>> from lightning_gradwatch.testing import make_flow
            >>> lines = FlowLines()
            >>> flow = make_flow({"fc": 0.5}).modules
            >>> lines.entry(3, 0, flow)["out_grad_norm"], "modules" in lines.entry(4, 0, flow)
            ([0.5], False)
        """
        entry: dict[str, Any] = {"step": step, "optimizer": optimizer}
        if flow.names != self._names:
            self._names = flow.names
            entry |= {"modules": list(flow.names), "kinds": list(flow.kinds)}
        for name in FIELDS:
            entry[name] = _short(getattr(flow, name), keep_nan=name == "out_grad_norm")
        return entry


def _short(values: Floats, *, keep_nan: bool) -> list[float | None]:
    """Return numbers of five digits; more say nothing about a gradient, and cost time and room."""
    return [
        None if math.isnan(value) and not keep_nan else float(f"{value:.5g}")
        for value in values.tolist()
    ]
