"""From calls to a `Flow`: the sum over an optimizer step.

What hooks measured are tensors without dimensions. They are packed into one vector a device, travel
with the gradients' norms, and are made sense of on the host.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_gradwatch.probe.activations import MAX_UNITS, Counts, pack
from lightning_gradwatch.probe.calls import Call
from lightning_gradwatch.sample import Floats, Flow, ModuleFlow, TimeProfile

Bits = npt.NDArray[np.uint8]

#: Bytes of masks that one sample may hold.
MAX_MASKS = 65_536

#: A number that waits on the device, or one that never was there.
_Place = tuple[tuple[torch.device, torch.dtype], int] | float

#: A call's numbers: `out` and `into` of `Call`, and its counts.
_Numbers = tuple[list[tuple[int, int, _Place]], list[_Place], dict[str, tuple[_Place, _Place]]]


class _Vectors:
    """Gathers numbers into one vector for each device and dtype."""

    def __init__(self) -> None:
        self._parts: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        self._values: dict[tuple[torch.device, torch.dtype], Floats] = {}

    def put(self, number: Tensor | float) -> _Place:
        if not isinstance(number, Tensor):
            return number
        part = self._parts.setdefault((number.device, number.dtype), [])
        part.append(number)
        return (number.device, number.dtype), len(part) - 1

    def tensors(self) -> list[Tensor]:
        return [torch.stack(part) for part in self._parts.values()]

    def load(self, fetched: Iterable[Floats]) -> None:
        self._values = dict(zip(self._parts, fetched, strict=True))

    def get(self, place: _Place) -> float:
        if not isinstance(place, tuple):
            return place
        return float(self._values[place[0]][place[1]])


class Reading:
    """What one step left on the device, on its way to a `Flow`.

    Args:
        calls: The calls that received a gradient; their gradients are taken out of them.
        feeds: Name of each module to the names of those whose outputs it was given.

    Attributes:
        tensors: What to bring to the host.
    """

    def __init__(self, calls: Iterable[Call], feeds: Mapping[str, set[str]]) -> None:
        self._vectors = _Vectors()
        put = self._vectors.put
        rows: dict[str, list[Call]] = {}
        for call in sorted(calls, key=lambda call: call.order):
            rows.setdefault(call.row.name, []).append(call)
        self._rows = [found[0].row for found in rows.values()]
        self._calls: list[list[_Numbers]] = [
            [
                (
                    [(task, which, put(norm)) for task, which, norm in call.out],
                    [put(norm) for norm in call.into],
                    {name: (put(c), put(n)) for name, (c, n) in call.counts.of.items()},
                )
                for call in found
            ]
            for found in rows.values()
        ]
        self._recurrent = _outermost(
            [
                row.name
                for row, found in zip(self._rows, rows.values(), strict=True)
                if len(found) > 1 and row.recurrent and _feeds_itself(row.name, feeds)
            ]
        )
        self._units: list[int] = []
        self._never: list[_Place] = []
        self._masks: dict[torch.device, list[tuple[int, Tensor]]] = {}
        room = MAX_MASKS
        for i, found in enumerate(rows.values()):
            active = _union([c.counts.active for c in found if c.counts.active is not None])
            units = 0 if active is None else active.numel()
            self._units.append(units)
            self._never.append(math.nan if active is None else put((~active).sum()))
            if active is not None and units <= MAX_UNITS and units / 8 <= room:
                room -= units // 8
                self._masks.setdefault(active.device, []).append((i, active))
        for found in rows.values():
            for call in found:
                call.out, call.into, call.counts = [], [], Counts()
        packed = [pack([mask for _, mask in masks]) for masks in self._masks.values()]
        self.tensors = [*self._vectors.tensors(), *packed]

    def finish(self, fetched: Sequence[Floats], scale: float) -> Flow | None:
        """Return the flow, or None if there was none.

        Args:
            fetched: `tensors` on the host.
            scale: What gradients were multiplied by: the loss scale, and the part of an
                accumulation window that was there.
        """
        if not self._rows:
            return None
        split = len(fetched) - len(self._masks)
        self._vectors.load(fetched[:split])
        norms = [self._norms(calls) for calls in self._calls]
        with np.errstate(over="ignore", invalid="ignore"):
            out = np.array([norm for norm, _ in norms]) / scale
        modules = ModuleFlow(
            names=tuple(row.name for row in self._rows),
            kinds=tuple(row.kind for row in self._rows),
            leaf=np.array([row.leaf for row in self._rows], np.bool_),
            functional=np.array([row.functional for row in self._rows], np.bool_),
            calls=np.array([len(calls) for calls in self._calls], np.int64),
            out_grad_norm=out,
            gain=np.array([gain for _, gain in norms]),
            zero_fraction=1.0 - self._fraction("nonzero"),
            nonfinite_fraction=self._fraction("nonfinite"),
            saturated_fraction=self._fraction("saturated"),
            units=np.array(self._units, np.int64),
            never_active=np.array([self._vectors.get(n) for n in self._never]),
            active=self._active(fetched[split:]),
            in_rms=np.sqrt(self._fraction("input")),
            out_rms=np.sqrt(self._fraction("output")),
            vectors=self._vectors_of_outputs(),
        )
        return Flow(tuple(self._profiles(scale)), modules)

    def _norms(self, calls: list[_Numbers]) -> tuple[float, float]:
        """Return the norm at the output over all calls, and the gain over those that have one."""
        get = self._vectors.get
        outs = [_together(get(norm) for _, _, norm in out) for out, _, _ in calls]
        through = [
            (norm, _together(map(get, into)))
            for norm, (_, into, _) in zip(outs, calls, strict=True)
            if into
        ]
        below = _together(norm for norm, _ in through)
        above = _together(norm for _, norm in through)
        gain = above / below if 0 < below < math.inf else math.nan
        return _together(outs), gain

    def _fraction(self, name: str) -> Floats:
        out = np.full(len(self._rows), np.nan)
        for i, calls in enumerate(self._calls):
            pairs = [counts[name] for _, _, counts in calls if name in counts]
            count = sum(self._vectors.get(c) for c, _ in pairs)
            total = sum(self._vectors.get(n) for _, n in pairs)
            if total:
                out[i] = count / total
        return out

    def _vectors_of_outputs(self) -> Floats:
        """Return how many vectors the outputs consist of that were looked at."""
        get = self._vectors.get
        return np.array(
            [
                sum(get(counts["vectors"][0]) for _, _, counts in calls if "vectors" in counts)
                for calls in self._calls
            ],
            np.float64,
        )

    def _active(self, packed: Sequence[Floats]) -> tuple[Bits | None, ...]:
        found: list[Bits | None] = [None] * len(self._rows)
        for masks, numbers in zip(self._masks.values(), packed, strict=True):
            bits = numbers.astype("<u2").view(np.uint8)
            for i, _ in masks:
                size = -(-self._units[i] // 16) * 2
                found[i], bits = bits[:size].copy(), bits[size:]
        return tuple(found)

    def _profiles(self, scale: float) -> Iterable[TimeProfile]:
        for row, calls in zip(self._rows, self._calls, strict=True):
            if row.name not in self._recurrent:
                continue
            by_pass: dict[int, list[float]] = {}
            for out, _, _ in calls:
                for task, which, norm in out:
                    if which == 0:
                        by_pass.setdefault(task, []).append(self._vectors.get(norm))
            # Micro-batches add up as long as they are equally long; else the longest is kept.
            length = max((len(norms) for norms in by_pass.values()), default=0)
            if length > 1:
                same = np.array([norms for norms in by_pass.values() if len(norms) == length])
                with np.errstate(over="ignore", invalid="ignore"):
                    yield TimeProfile(row.name, np.linalg.norm(same / scale, axis=0))


def _together(norms: Iterable[float]) -> float:
    """Norm of a whole from the norms of its parts; NaN if any is, which `hypot` would hide."""
    parts = list(norms)
    return math.nan if any(map(math.isnan, parts)) else math.hypot(*parts)


def _union(masks: list[Tensor]) -> Tensor | None:
    """Return which units were active in any call; None if the calls do not have the same units."""
    if not masks or len({mask.shape for mask in masks}) > 1:
        return None
    return masks[0] if len(masks) == 1 else torch.stack(masks).any(dim=0)


def _feeds_itself(name: str, feeds: Mapping[str, set[str]]) -> bool:
    seen: set[str] = set()
    queue = [name]
    while queue:
        for source in feeds.get(queue.pop(), ()):
            if source == name:
                return True
            if source not in seen:
                seen.add(source)
                queue.append(source)
    return False


def _outermost(names: list[str]) -> set[str]:
    """Drop names inside others: a cell and the layers in it tell the same story."""
    return {n for n in names if not any(n.startswith(f"{other}.") for other in names)}
