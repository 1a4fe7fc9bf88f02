"""What answers are made of: a run, on disk or in memory, as series, findings and actions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from lightning_gradwatch.finding import Finding
from lightning_gradwatch.layers import Layout
from lightning_gradwatch.view.acted import ActionLog
from lightning_gradwatch.view.cells import Values
from lightning_gradwatch.view.measured import STRIPS
from lightning_gradwatch.view.series import Row, Series
from lightning_gradwatch.view.turns import Turns

#: Narrowest bins of the series that can be read from disk again.
BASE = 16

#: Series of what sampled steps did to the weights.
UPDATES = ("update_ratio", "weight_norm")

Reader = Callable[[int, int], Iterator[Values]]
NamedReader = Callable[[str, int, int], Iterator[Values]]


class Shown:
    """A run as the view shows it.

    Attributes:
        layout: Its parameters and layers.
        norm_type: The p of the norms.
        series: By name.
        findings: In order of first step.
        open: Code and first step of those that may have gone on after the last word on them.
        actions: What actions did, one entry for each.
        epochs: Epochs begun; 0 if unknown.
        config: GradWatch's arguments.
        environment: Versions and devices.
        problems: What could not be read, one sentence each.
        complete: Whether all there is has been taken in.
        writing: Whether something was written a moment ago.
        turns: Which optimizer trains which layers.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.layout = Layout((), (), (), (), (), ())
        self.norm_type = 2.0
        self.series: dict[str, Series] = {}
        self.findings: tuple[Finding, ...] = ()
        self.open: frozenset[tuple[str, int]] = frozenset()
        self.actions: tuple[ActionLog, ...] = ()
        self.epochs = 0
        self.config: Mapping[str, Any] = {}
        self.environment: Mapping[str, Any] = {}
        self.problems: tuple[str, ...] = ()
        self.complete = False
        self.writing = False
        self.turns = Turns()
        self._index: dict[str, int] = {}

    @property
    def version(self) -> str:
        """A string that changes whenever something is written."""
        return ""

    @property
    def nbytes(self) -> int:
        """Memory of the series."""
        return sum(series.nbytes for series in self.series.values())

    def refresh(self, patience: float | None = None) -> None:
        """Take in what is new; what is in memory is there already."""

    def add(self, series: Series) -> None:
        """Add a series, in place of one of the same name."""
        self.series[series.name] = series

    def layer_of(self, module: str) -> int | None:
        """Return the index of a module among the layers; None if it is not one of them."""
        if len(self._index) != len(self.layout.layers):
            self._index = {name: i for i, name in enumerate(self.layout.layers)}
        return self._index.get(module)

    def rows(self, start: int, stop: int) -> Iterator[tuple[Layout, Any]]:
        """Yield recorded steps by their index, each with the layout of its columns, where known."""
        yield from ()

    def records(self, step: int) -> list[dict[str, Any]]:
        """Return what actions did at a step."""
        return []

    @property
    def unreadable(self) -> bool:
        """Whether there is something that this version cannot read at all."""
        return any(segment["problem"] for segment in self.segments())

    def segments(self) -> list[dict[str, Any]]:
        """Return what is known of each segment."""
        return []


def layer_rows(layout: Layout) -> list[Row]:
    """Return one row for each layer, in order of execution."""
    named = zip(layout.layers, layout.kinds, strict=True)
    return [Row(name, kind, i) for i, (name, kind) in enumerate(named)]


def grad_norm_series(layout: Layout, read: Reader | None = None) -> Series:
    """Return an empty series of gradient norms by layer; all in memory without `read`."""
    base = BASE if read is not None else 1
    return Series("grad_norm", "gradient norm", layer_rows(layout), base=base, read=read)


def strip_series(read: Reader | None = None) -> Series:
    """Return an empty series of what is drawn under the map."""
    rows = [Row(name, log=log) for name, log in STRIPS.items()]
    base = BASE if read is not None else 1
    return Series("strips", "norms, loss and learning rate", rows, base=base, read=read)


def update_series(layout: Layout, read: NamedReader | None = None) -> Sequence[Series]:
    """Return the empty series of what steps did to the weights."""
    rows = layer_rows(layout)
    titles = ("weight change over weight norm", "weight norm")
    return [
        Series(name, title, rows, read=None if read is None else partial(read, name))
        for name, title in zip(UPDATES, titles, strict=True)
    ]


def nearest(steps: np.typing.NDArray[np.int64], step: int) -> int:
    """Return the index of the (first) step nearest to `step`."""
    after = int(np.searchsorted(steps, step))
    if after == len(steps):
        after -= 1
    if after and step - steps[after - 1] <= abs(int(steps[after]) - step):
        return int(np.searchsorted(steps, steps[after - 1]))
    return after
