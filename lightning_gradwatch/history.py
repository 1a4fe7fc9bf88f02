"""The run so far, bounded in memory: recent steps in full, older ones thinned, extremes kept.

When the buffer is full, neighbouring steps are paired, the newest quarter left out, and of the
closest pairs the more telling step stays: the one that lies farther from the layers' running
medians, a non-finite one above all. What is left covers the run evenly, a one-step spike of a
single layer survives any length of run, and minimum, maximum and count of every layer are kept
exactly beside the rows.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.layers import Layout
from lightning_gradwatch.sample import Bools, Floats, Flow, Sample, Update

if TYPE_CHECKING:
    import pandas as pd

#: Rows kept for small models, and the memory (bytes) that bounds the rows of large ones.
MAX_ROWS = 4096
MAX_BYTES = 64 * 2**20

#: The same for the steps on which modules were hooked.
MAX_FLOWS = 512
MAX_FLOW_BYTES = 32 * 2**20

_EMPTY = Layout((), (), (), (), (), ())
_SCALARS = ("global_norm", "clipped_norm", "loss", "lr")


class History:
    """Arrays over the recorded steps; row t belongs to `steps[t]`.

    With several optimizers each optimizer step has a row of its own and `optimizer[t]` tells which;
    steps then repeat. Every array is a copy: changing it changes nothing here.

    Attributes:
        layout: Names of parameters (P) and layers (L).
        flow: `(step, Flow)` of the steps on which modules were hooked, newest last, bounded.
        recorded: Number of optimizer steps seen, thinned ones included.

    Example:
        >>> from lightning_gradwatch.testing import make_sample
        >>> history = History()
        >>> for step in range(3):
        ...     history.append(make_sample(step, [3.0, 4.0], loss=1.0 / (step + 1)))
        >>> history.steps, history.global_norm, history.layer_grad_norm.shape
        (array([0, 1, 2]), array([5., 5., 5.]), (3, 2))
    """

    def __init__(
        self, norm_type: float = 2.0, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES
    ) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self.norm_type = norm_type
        self._adopt(_EMPTY)

    def _adopt(self, layout: Layout) -> None:
        """Start empty buffers for `layout`; rows of an earlier layout are moved by the caller."""
        width, depth = len(layout.parameters), len(layout.layers)
        # Two float32 tables and a mask over parameters are what takes the room.
        by_memory = self._max_bytes // max(9 * width + 64, 1)
        self.layout = layout
        self._capacity = int(min(self._max_rows, max(64, by_memory))) // 2 * 2
        self._rows = 0
        self.recorded = 0
        self.flow: list[tuple[int, Flow]] = []
        self._steps = np.zeros(self._capacity, np.int64)
        self._optimizer = np.zeros(self._capacity, np.int64)
        self._scalars = {name: np.full(self._capacity, np.nan) for name in _SCALARS}
        self._grad = np.full((self._capacity, width), np.nan, np.float32)
        self._has: Bools = np.zeros((self._capacity, width), np.bool_)
        self._ratio = np.full((self._capacity, width), np.nan, np.float32)
        self._score = np.zeros(self._capacity)
        self._middle = np.full(width, np.nan)
        self.layer_min = np.full(depth, np.inf)
        self.layer_max = np.full(depth, -np.inf)
        self.layer_nonfinite = np.zeros(depth, np.int64)

    def append(self, sample: Sample) -> None:
        """Add the row of one optimizer step."""
        if sample.layout is not self.layout and sample.layout != self.layout:
            self._change_layout(sample.layout)
        if self._rows == self._capacity:
            self._thin()
        t = self._rows
        self._steps[t] = sample.step
        self._optimizer[t] = sample.optimizer
        for name in _SCALARS:
            self._scalars[name][t] = getattr(sample, name)
        with np.errstate(over="ignore"):
            self._grad[t] = sample.grad_norm
        self._has[t] = sample.has_grad
        self._ratio[t] = np.nan
        self._score[t] = self._extremity(sample)
        self._rows += 1
        self.recorded += 1
        self._count_extremes(sample)
        if sample.flow is not None:
            self.flow.append((sample.step, sample.flow))
            room = min(MAX_FLOWS, max(16, MAX_FLOW_BYTES // max(sample.flow.nbytes, 1)))
            if len(self.flow) > room:
                del self.flow[1 : len(self.flow) // 2 + 1 : 2]
        if sample.update is not None:
            self.settle(sample.update.step, sample.update.optimizer, update=sample.update)

    def settle(
        self,
        step: int,
        optimizer: int,
        clipped_norm: float | None = None,
        update: Update | None = None,
    ) -> None:
        """Fill in what became known of a recent row after its step was made."""
        for t in range(self._rows - 1, max(-1, self._rows - 65), -1):
            if self._steps[t] == step and self._optimizer[t] == optimizer:
                if clipped_norm is not None:
                    self._scalars["clipped_norm"][t] = clipped_norm
                if update is not None and len(update.weight_norm) == self._ratio.shape[1]:
                    with np.errstate(over="ignore"):
                        self._ratio[t] = update.update_ratio
                return

    def _extremity(self, sample: Sample) -> float:
        """How far the row lies from the parameters' running medians, in decades; Inf at worst."""
        if sample.nonfinite.any():
            return float("inf")
        log = np.log10(np.maximum(sample.grad_norm, 1e-45))
        gap = log - self._middle
        if len(gap) and np.isfinite(gap).all():  # nearly always
            self._middle += 0.02 * np.sign(gap)
            return float(np.abs(gap).max())
        fresh = np.isnan(self._middle) & ~np.isnan(log)
        self._middle[fresh] = log[fresh]
        gap = log - self._middle
        known = ~np.isnan(gap)
        # A sign step of 0.02 decades is a streaming median: no outlier can drag it.
        self._middle[known] += 0.02 * np.sign(gap[known])
        return float(np.max(np.abs(gap[known]), initial=0.0))

    def _count_extremes(self, sample: Sample) -> None:
        norms = sample.layer_grad_norm
        there = sample.layer_has_grad
        finite = np.isfinite(norms)
        if finite.all():  # nearly always
            np.fmin(self.layer_min, norms, out=self.layer_min)
            np.fmax(self.layer_max, norms, out=self.layer_max)
            return
        finite &= there
        self.layer_min[finite] = np.minimum(self.layer_min[finite], norms[finite])
        self.layer_max[finite] = np.maximum(self.layer_max[finite], norms[finite])
        self.layer_nonfinite += there & ~finite

    def _keep(self, rows: npt.NDArray[np.intp]) -> None:
        tables: list[npt.NDArray[Any]] = [
            self._steps, self._optimizer, self._grad, self._has, self._ratio, self._score,
            *self._scalars.values(),
        ]  # fmt: skip
        for table in tables:
            table[: len(rows)] = table[rows]
        self._rows = len(rows)

    def _thin(self) -> None:
        older = self._rows * 3 // 8 * 2
        # Pairs are of one optimizer, or one that is always louder would crowd out the other.
        pairs = np.argsort(self._optimizer[:older], kind="stable").reshape(-1, 2)
        # Close neighbours first: what is left covers the run evenly instead of fading with age.
        span = np.abs(np.diff(self._steps[pairs], axis=1)[:, 0])
        close = pairs[np.argsort(span, kind="stable")[: max(1, len(pairs) // 2)]]
        lesser = close[np.arange(len(close)), 1 - np.argmax(self._score[close], axis=1)]
        self._keep(np.setdiff1d(np.arange(self._rows), lesser))

    def _change_layout(self, layout: Layout) -> None:
        """Carry the rows over to new columns: parameters added, or execution order known."""
        old = {name: i for i, name in enumerate(self.layout.parameters)}
        columns = [(new, old[name]) for new, name in enumerate(layout.parameters) if name in old]
        was = dict(self.__dict__)
        layers = {name: i for i, name in enumerate(self.layout.layers)}
        self._adopt(layout)
        if not was["_rows"]:
            return
        rows = min(was["_rows"], self._capacity)
        source = slice(was["_rows"] - rows, was["_rows"])
        new, before = (np.array(c, np.intp) for c in zip(*columns, strict=True)) if columns else (
            np.zeros(0, np.intp), np.zeros(0, np.intp)
        )  # fmt: skip
        for name in ("_steps", "_optimizer", "_score"):
            getattr(self, name)[:rows] = was[name][source]
        for name in _SCALARS:
            self._scalars[name][:rows] = was["_scalars"][name][source]
        for name in ("_grad", "_has", "_ratio"):
            getattr(self, name)[:rows, new] = was[name][source][:, before]
        self._middle[new] = was["_middle"][before]
        for i, name in enumerate(layout.layers):
            if name in layers:
                for table in ("layer_min", "layer_max", "layer_nonfinite"):
                    getattr(self, table)[i] = was[table][layers[name]]
        self._rows, self.recorded, self.flow = rows, was["recorded"], was["flow"]

    def __len__(self) -> int:
        """Rows held."""
        return self._rows

    @property
    def parameters(self) -> tuple[str, ...]:
        """Dotted names of the parameters, the columns of `grad_norm`."""
        return self.layout.parameters

    @property
    def layers(self) -> tuple[str, ...]:
        """Dotted names of the layers in order of execution, the columns of `layer_grad_norm`."""
        return self.layout.layers

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """Steps, shape (T,)."""
        return np.array(self._steps[: self._rows])

    @property
    def optimizer(self) -> npt.NDArray[np.int64]:
        """Index of the optimizer of each row, shape (T,)."""
        return np.array(self._optimizer[: self._rows])

    @property
    def grad_norm(self) -> Floats:
        """Gradient norms before clipping, shape (T, P); NaN without a gradient (see `has_grad`)."""
        return self._grad[: self._rows].astype(np.float64)

    @property
    def has_grad(self) -> Bools:
        """Whether the parameter had a gradient of this row's optimizer, shape (T, P)."""
        return np.array(self._has[: self._rows])

    @property
    def layer_grad_norm(self) -> Floats:
        """Gradient norms by layer, shape (T, L); NaN where a layer had none."""
        out = np.full((self._rows, len(self.layers)), np.nan)
        edges = [*self.layout.layer_starts, len(self.parameters)]
        for j, (start, stop) in enumerate(pairwise(edges)):
            norms = self._grad[: self._rows, start:stop].astype(np.float64)
            has = self._has[: self._rows, start:stop]
            there = has.any(axis=1)
            values = self._combine(np.where(has, norms, 0.0))
            out[there, j] = values[there]
        return out

    def _combine(self, norms: Floats) -> Floats:
        if np.isinf(self.norm_type):
            return np.asarray(np.max(norms, axis=1))
        with np.errstate(invalid="ignore"):
            total = np.sum(norms**self.norm_type, axis=1)
        return np.asarray(total ** (1.0 / self.norm_type))

    @property
    def global_norm(self) -> Floats:
        """Norm over all gradients of the row's optimizer, before clipping, shape (T,)."""
        return np.array(self._scalars["global_norm"][: self._rows])

    @property
    def clipped_norm(self) -> Floats:
        """The norm the optimizer really used, shape (T,)."""
        return np.array(self._scalars["clipped_norm"][: self._rows])

    @property
    def loss(self) -> Floats:
        """Loss, shape (T,); NaN where unknown."""
        return np.array(self._scalars["loss"][: self._rows])

    @property
    def lr(self) -> Floats:
        """Learning rate of the optimizer's first parameter group, shape (T,)."""
        return np.array(self._scalars["lr"][: self._rows])

    @property
    def update_ratio(self) -> Floats:
        """Norm of the weight change over the weight norm, shape (T, P); NaN on unsampled steps."""
        return self._ratio[: self._rows].astype(np.float64)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per step and one column per scalar and layer; needs pandas.

        Raises:
            ImportError: pandas is not installed; the message says how to install it.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("History.to_pandas() needs pandas: pip install pandas") from error
        columns = {"optimizer": self.optimizer} | {n: getattr(self, n) for n in _SCALARS}
        norms = self.layer_grad_norm
        columns |= {f"grad_norm/{name}": norms[:, j] for j, name in enumerate(self.layers)}
        return pd.DataFrame(columns, index=pd.Index(self.steps, name="step"))
