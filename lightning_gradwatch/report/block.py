"""One row of the table: a block of layers, its norms over the run and its state of health."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from lightning_gradwatch.finding import Severity
from lightning_gradwatch.report.wording import count


@dataclass(frozen=True)
class Block:
    """Gradient norms of the layers of one block over the run.

    Norms are those of single layers, before clipping. NaN means that there was nothing to measure.

    Attributes:
        name: Dotted name.
        layers: Dotted names of its layers, in order of execution.
        parameters: Number of its trainable parameters (tensors).
        elements: Number of scalars in them.
        median: Median norm over layers and recorded steps.
        minimum: Smallest finite norm of a layer at any step, thinned ones included.
        maximum: Largest finite norm of a layer at any step, thinned ones included.
        update_ratio: Median weight change over weight norm per step; of matrices if it has any.
        nonfinite: Steps at which a layer's gradient held NaN or Inf.
        trend: log10 of the block's norm over the run, one value per cell: the one farthest from
            the block's median. NaN without a gradient, `inf` for a non-finite one, `-inf` for 0.
        marks: For each cell the code of the finding that it shows, or `""`.
        code: Code of the block's worst finding; `""` without one.
        severity: Severity of that finding; None without one.
        count: Number of steps that showed it.
    """

    name: str
    layers: tuple[str, ...]
    parameters: int
    elements: int
    median: float
    minimum: float
    maximum: float
    update_ratio: float
    nonfinite: int = 0
    trend: tuple[float, ...] = ()
    marks: tuple[str, ...] = ()
    code: str = ""
    severity: Severity | None = None
    count: int = 0

    @property
    def sick(self) -> bool:
        """Whether a finding of severity WARNING or higher concerns this block."""
        return self.severity is not None and self.severity >= Severity.WARNING

    @property
    def trend_seen(self) -> bool:
        """Whether there was a gradient at any recorded step."""
        return any(not math.isnan(value) for value in self.trend)

    @property
    def status(self) -> str:
        """The worst finding in a word or two; `ok` without one."""
        if not self.code:
            return "ok" if self.trend_seen else "no gradient"
        times = self.code in ("exploding", "spike", "nonfinite") and self.count > 1
        return self.code.replace("_", " ") + (f" ×{count(self.count)}" if times else "")

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python types; numbers that could not be measured are None."""
        data = asdict(self)
        for name in ("median", "minimum", "maximum", "update_ratio"):
            data[name] = None if math.isnan(data[name]) else data[name]
        data["trend"] = [None if math.isnan(v) else v for v in self.trend]
        data["layers"], data["marks"] = list(self.layers), list(self.marks)
        data["severity"] = None if self.severity is None else self.severity.name
        data["status"] = self.status
        return data
