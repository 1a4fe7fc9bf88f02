"""From calls to a `Flow`: the sum over an optimizer step.

What hooks measured are tensors without dimensions. They are packed into one vector a device, travel
with the gradients' norms, and are made sense of on the host.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_gradwatch.probe import host
from lightning_gradwatch.probe.calls import Call, Seen
from lightning_gradwatch.probe.counts import MAX_UNITS, Number, pack
from lightning_gradwatch.sample import Bools, Floats, Flow, ModuleFlow, TimeProfile

Bits = npt.NDArray[np.uint8]
Mask = Tensor | Bools

#: Bytes of masks that one sample may hold.
MAX_MASKS = 65_536

#: Numbers, some at hand, some None; and the places of those that come from devices, by device.
_Column = tuple[list[float | None], dict[tuple[torch.device, torch.dtype], list[tuple[int, int]]]]


class _Vectors:
    """Gathers numbers into one vector for each device and dtype."""

    def __init__(self) -> None:
        self._parts: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        self._values: dict[tuple[torch.device, torch.dtype], Floats] = {}

    def put(self, numbers: Sequence[Number | None]) -> _Column:
        kept = list(numbers)
        places: dict[tuple[torch.device, torch.dtype], list[tuple[int, int]]] = {}
        if not any(issubclass(kind, Tensor) for kind in {*map(type, kept)}):
            return kept, places  # type: ignore[return-value]
        for i, number in enumerate(numbers):
            if isinstance(number, Tensor):
                key = number.device, number.dtype
                part = self._parts.setdefault(key, [])
                places.setdefault(key, []).append((i, len(part)))
                part.append(number)
                kept[i] = None
        return kept, places  # type: ignore[return-value]

    def tensors(self) -> list[Tensor]:
        return [torch.stack(part) for part in self._parts.values()]

    def load(self, fetched: Iterable[Floats]) -> None:
        self._values = dict(zip(self._parts, fetched, strict=True))

    def get(self, column: _Column) -> tuple[Floats, Bools]:
        """Return the numbers, and which of them there are; 0 for the others."""
        kept, places = column
        if None not in kept and not places:
            return np.array(kept, np.float64), np.ones(len(kept), np.bool_)
        missing = np.array([number is None for number in kept], np.bool_)
        values = np.array([0.0 if number is None else number for number in kept], np.float64)
        for key, pairs in places.items():
            for i, place in pairs:
                values[i] = self._values[key][place]
                missing[i] = False
        return values, ~missing


class Reading:
    """What one step left on the device, on its way to a `Flow`.

    Args:
        seen: What came back; the calls are free of it then.
        fed: Names of modules, once for each output of a module that they were given...
        by: ... and the names of the modules whose output that was.

    Attributes:
        tensors: What to bring to the host.
    """

    def __init__(self, seen: Seen, fed: Sequence[str], by: Sequence[tuple[str, ...]]) -> None:
        calls = sorted(dict.fromkeys(seen.out.calls), key=lambda call: call.order)
        names: dict[str, int] = {}
        self._row_of = [names.setdefault(call.row.name, len(names)) for call in calls]
        self._rows = [call.row for call in _first_of_each(calls, self._row_of)]
        number = {call: i for i, call in enumerate(calls)}
        into = [i for i, call in enumerate(seen.into.calls) if call in number]
        self._out_of = [number[call] for call in seen.out.calls]
        self._into_of = [number[seen.into.calls[i]] for i in into]
        self._passes = seen.out.passes
        self._is_first = seen.out.firsts
        self._vectors = _Vectors()
        self._out = self._vectors.put(seen.out.norms)
        self._into = self._vectors.put([seen.into.norms[i] for i in into])
        self._counts = {
            name: self._vectors.put([getattr(call, name) for call in calls])
            for name in (
                "total", "squares", "nonzero", "nonfinite", "saturated", "vectors", "input",
                "input_total",
            )
        }  # fmt: skip
        self._recurrent: set[str] = set()
        if len(calls) > len(names):
            self._recurrent = _recurrent(calls, fed, by)
        self._see_units(calls)
        packed = [pack([mask for _, mask in masks]) for masks in self._masks.values()]
        self.tensors = [*self._vectors.tensors(), *packed]
        for call in calls:
            call.forget()

    def _see_units(self, calls: Sequence[Call]) -> None:
        """Join the units of each row's calls: on the host at once, on a device into masks."""
        found: list[list[Mask]] = [[] for _ in self._rows]
        for row, call in zip(self._row_of, calls, strict=True):
            if call.active is not None:
                found[row].append(call.active)
        self._units = np.zeros(len(found), np.int64)
        self._bits: list[Bits | None] = [None] * len(found)
        self._masks: dict[torch.device, list[tuple[int, Tensor]]] = {}
        never: list[Number] = [math.nan] * len(found)
        room = MAX_MASKS
        for i, masks in enumerate(found):
            active = _union(masks) if masks else None
            if active is None:
                continue
            if isinstance(active, Tensor) and host.is_at_hand(active):
                active = active.numpy()
            self._units[i] = units = len(active)
            fits = units <= MAX_UNITS and units / 8 <= room
            room -= units // 8 if fits else 0
            if isinstance(active, Tensor):
                never[i] = (~active).sum()
                if fits:
                    self._masks.setdefault(active.device, []).append((i, active))
            else:
                never[i] = float(units - np.count_nonzero(active))
                if fits:
                    self._bits[i] = _packed(active)
        self._never = self._vectors.put(never)

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
        row_of = np.array(self._row_of, np.intp)
        out, gain = self._norms(row_of)
        counts = {name: self._vectors.get(column) for name, column in self._counts.items()}

        def fraction(name: str, total: str = "total") -> Floats:
            (values, there), (totals, _) = counts[name], counts[total]
            whole = self._sum(row_of, np.where(there, totals, 0.0))
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.where(whole != 0, self._sum(row_of, values) / whole, np.nan)

        with np.errstate(over="ignore", invalid="ignore"):
            out_grad_norm = out / scale
        modules = ModuleFlow(
            names=tuple(row.name for row in self._rows),
            kinds=tuple(row.kind for row in self._rows),
            leaf=np.array([row.leaf for row in self._rows], np.bool_),
            functional=np.array([row.functional for row in self._rows], np.bool_),
            calls=np.bincount(row_of).astype(np.int64),
            out_grad_norm=out_grad_norm,
            gain=gain,
            zero_fraction=1.0 - fraction("nonzero"),
            nonfinite_fraction=fraction("nonfinite"),
            saturated_fraction=fraction("saturated"),
            units=self._units,
            never_active=self._vectors.get(self._never)[0],
            active=self._active(fetched[split:]),
            in_rms=np.sqrt(fraction("input", "input_total")),
            out_rms=np.sqrt(fraction("squares")),
            vectors=self._sum(row_of, counts["vectors"][0]),
        )
        return Flow(tuple(self._profiles(scale)), modules)

    def _sum(self, row_of: npt.NDArray[np.intp], values: Floats) -> Floats:
        return np.bincount(row_of, values, len(self._rows)).astype(np.float64, copy=False)

    def _norms(self, row_of: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Return the norm at the output over all calls, and the gain over those that have one."""
        out, into = self._vectors.get(self._out)[0], self._vectors.get(self._into)[0]
        out_of, into_of = np.array(self._out_of, np.intp), np.array(self._into_of, np.intp)
        through = np.zeros(len(row_of), np.bool_)
        through[into_of] = True
        through = through[out_of]
        rows = len(self._rows)
        below = _together(row_of[out_of[through]], out[through], rows)
        above = _together(row_of[into_of], into, rows)
        gain = np.full(rows, np.nan)
        np.divide(above, below, out=gain, where=(below > 0) & (below < math.inf))
        return _together(row_of[out_of], out, rows), gain

    def _active(self, packed: Sequence[Floats]) -> tuple[Bits | None, ...]:
        for masks, numbers in zip(self._masks.values(), packed, strict=True):
            bits = numbers.astype("<u2").view(np.uint8)
            for i, _ in masks:
                size = -(-int(self._units[i]) // 16) * 2
                self._bits[i], bits = bits[:size].copy(), bits[size:]
        return tuple(self._bits)

    def _profiles(self, scale: float) -> Iterable[TimeProfile]:
        if not self._recurrent:
            return
        norms = self._vectors.get(self._out)[0]
        in_order = sorted(range(len(norms)), key=self._out_of.__getitem__)
        for i, row in enumerate(self._rows):
            if row.name not in self._recurrent:
                continue
            by_pass: dict[int, list[float]] = {}
            for k in in_order:
                if self._is_first[k] and self._row_of[self._out_of[k]] == i:
                    by_pass.setdefault(self._passes[k], []).append(norms[k])
            # Micro-batches add up as long as they are equally long; else the longest is kept.
            length = max((len(found) for found in by_pass.values()), default=0)
            if length > 1:
                same = np.array([found for found in by_pass.values() if len(found) == length])
                with np.errstate(over="ignore", invalid="ignore"):
                    yield TimeProfile(row.name, np.linalg.norm(same / scale, axis=0))


def _first_of_each(calls: Sequence[Call], row_of: Sequence[int]) -> list[Call]:
    first: dict[int, Call] = {}
    for row, call in zip(row_of, calls, strict=True):
        first.setdefault(row, call)
    return list(first.values())


def _together(row_of: npt.NDArray[np.intp], norms: Floats, rows: int) -> Floats:
    """Norms of wholes from the norms of their parts; NaN if any is, which `hypot` would hide."""
    whole = np.zeros(rows)
    with np.errstate(over="ignore"):
        np.hypot.at(whole, row_of, norms)
    whole[row_of[np.isnan(norms)]] = np.nan
    return whole


def _union(masks: Sequence[Mask]) -> Mask | None:
    """Return which units were active in any call; None if the calls do not have the same units."""
    if len({mask.shape for mask in masks}) > 1:
        return None
    whole = masks[0]
    for mask in masks[1:]:
        whole = whole | mask
    return whole


def _packed(active: Bools) -> Bits:
    """Pack flags on the host as `pack` does on a device: in whole numbers of 16 bits."""
    bits = np.packbits(active, bitorder="little")
    return np.append(bits, np.uint8(0)) if len(bits) % 2 else bits


def _recurrent(
    calls: Sequence[Call], fed: Sequence[str], by: Sequence[tuple[str, ...]]
) -> set[str]:
    """Return the names of outermost modules that were fed their own output."""
    times = Counter(call.row.name for call in calls)
    names = [
        name for name in {c.row.name: None for c in calls if c.row.recurrent} if times[name] > 1
    ]
    feeds: dict[str, set[str]] = {}
    if names:
        for name, sources in zip(fed, by, strict=True):
            feeds.setdefault(name, set()).update(sources)
    return _outermost([name for name in names if _feeds_itself(name, feeds)])


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
