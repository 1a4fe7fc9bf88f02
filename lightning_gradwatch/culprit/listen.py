"""Listens to every operation of a forward and a backward pass for NaN and Inf.

A dispatch mode sees what no hook on modules sees: functions between modules, the loss, and the
single operations of the backward pass. Only tensors that are not finite are kept, each with the
operation that wrote it and the non-finite tensors that it read, so that `blame.py` can walk back.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_gradwatch.culprit.batches import is_broken
from lightning_gradwatch.layers import ROOT
from lightning_gradwatch.probe.graph import tensors_in
from lightning_gradwatch.probe.hooks import Hook, HookSet, eager_modules
from lightning_gradwatch.probe.parameters import clean_name

#: Memory that nobody has written to yet may hold anything.
_UNWRITTEN = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "resize_")

_PACKAGES = tuple(
    f"{os.sep}{name}{os.sep}"
    for name in ("torch", "pytorch_lightning", "lightning", "lightning_fabric", "torchmetrics")
)
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class Collective(RuntimeError):
    """The replay wants to talk to other processes, which are not listening."""


@dataclass(frozen=True)
class Flags:
    """What kinds of non-finite values a tensor holds."""

    nan: bool
    above: bool
    below: bool

    @classmethod
    def of(cls, tensor: Tensor) -> Flags:
        """Look at a tensor."""
        values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        found = (values.isnan(), values.isposinf(), values.isneginf())
        return cls(*torch.stack([kind.any() for kind in found]).tolist())


@dataclass(eq=False)
class Record:
    """An operation, or a source from outside, that left something non-finite.

    Attributes:
        index: Number of the record: earlier ones happened earlier; sources are below zero.
        operation: Name of the operation, or of the source.
        flags: What it left.
        source: `"batch"`, `"weight"`, `"buffer"` or `"outside"`; "" for operations.
        reads: The records whose results it read, with what these held at that time.
        function: In the backward pass, the function whose derivative it is.
        moment: How many calls of modules had begun or ended when the forward pass was there.
        backward: Whether it happened in the backward pass.
        line: `file:number` and the text of the user's line.
        dtype: Of the result.
        facts: What its inputs looked like.
        key: Storage of the result.
    """

    index: int
    operation: str
    flags: Flags
    source: str = ""
    reads: list[tuple[Record, Flags]] = field(default_factory=list)
    function: str = ""
    moment: int = -1
    backward: bool = False
    line: tuple[str, int, str] = ("", 0, "")
    dtype: torch.dtype = torch.float32
    facts: dict[str, float] = field(default_factory=dict)
    key: int = 0


@dataclass(frozen=True)
class Event:
    """A call of a module began or ended.

    Attributes:
        sequence: Autograd nodes made before.
        name: Name of the module.
        kind: Its class.
        begins: Whether it began.
        carries: Whether it was given a tensor with a gradient: metrics are not.
    """

    sequence: int
    name: str
    kind: str
    begins: bool
    carries: bool = False


class Listener(TorchDispatchMode):
    """Records every operation that writes NaN or Inf.

    Args:
        sources: `(kind, name, tensor)` of what is there before.
    """

    def __init__(self, sources: Iterable[tuple[str, str, Tensor]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types there
        self.events: list[Event] = []
        self.backward = False
        self._count = 0
        self._thread = threading.get_ident()
        self._tainted: dict[int, tuple[Record, object]] = {}
        for i, (kind, name, tensor) in enumerate(sources):
            if is_broken(tensor):
                record = Record(i - 1_000_000, name, Flags.of(tensor.detach()), kind)
                self._taint(tensor, record)

    # ------------------------------------------------------------------ modules

    @contextmanager
    def watching(self, root: nn.Module) -> Iterator[Listener]:
        """Listen to everything that runs inside, and to the calls of the modules of `root`."""
        hooks = HookSet()
        before = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
        kinds = {}
        for raw, module in eager_modules(root):
            name = clean_name(raw) or ROOT
            kinds[name] = type(module).__name__
            enter = Hook(lambda n, _, *given: self._event(n, kinds[n], True, given), name, _ignore)
            leave = Hook(lambda n, *_: self._event(n, kinds[n], False), name, _ignore)
            hooks.add(enter, module.register_forward_pre_hook(enter, with_kwargs=True))
            hooks.add(leave, module.register_forward_hook(leave))
        try:
            # Keeps, with each node of the graph, the line of the user's that made it.
            torch.autograd.set_detect_anomaly(True, check_nan=False)
            with self:
                yield self
        finally:
            torch.autograd.set_detect_anomaly(*before)
            hooks.remove()

    def _event(self, name: str, kind: str, begins: bool, given: Any = ()) -> None:
        if threading.get_ident() == self._thread:  # a recomputation on a GPU has another
            carries = bool(tensors_in(given))
            self.events.append(Event(_sequence(), name, kind, begins, carries))

    def moment_of(self, sequence: int) -> int:
        """Return the moment at which a node of the graph was made."""
        return bisect_left(self.events, sequence + 1, key=lambda event: event.sequence)

    # ------------------------------------------------------------------ operations

    def record_of(self, tensor: Tensor) -> Record | None:
        """Return the record of what a tensor holds; None if it is finite or unheard of."""
        known = self._tainted.get(_key(tensor))
        return None if known is None or not is_broken(tensor) else known[0]

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if "c10d" in func.namespace:
            raise Collective(f"it calls {func._schema.name} on other processes")
        name = func._schema.name.partition("::")[2]
        if name in _UNWRITTEN:
            return func(*args, **kwargs)
        read, written = _arguments(func, args, kwargs)
        with torch.no_grad():
            reads = self._reads(read)
        result = func(*args, **kwargs)
        with torch.no_grad():
            self._look(name, read, written, reads, result)
        return result

    def _reads(self, tensors: list[Tensor]) -> list[tuple[Record, Flags]]:
        if not self._tainted:
            return []
        found = []
        for tensor in tensors:
            record = self.record_of(tensor)
            if record is not None:
                found.append((record, Flags.of(tensor.detach())))
        return found

    def _look(
        self,
        name: str,
        read: list[Tensor],
        written: list[Tensor],
        reads: list[tuple[Record, Flags]],
        result: Any,
    ) -> None:
        known = {_key(t) for t in read} - {_key(t) for t in written}
        fresh = [t for t in _tensors(result) if _key(t) not in known]  # the others are views
        broken = [t for t in (*fresh, *written) if is_broken(t)]
        if not broken:
            return
        flags = Flags.of(broken[0].detach())
        overwritten = {_key(t) for t in written}
        untouched = [t for t in read if _key(t) not in overwritten]
        if not reads:
            for tensor in untouched:
                if is_broken(tensor):
                    held = Flags.of(tensor.detach())
                    outside = Record(self._count - 500_000, "a tensor", held, "outside")
                    self._taint(tensor, outside)
                    reads.append((outside, held))
        record = Record(self._count, name, flags, reads=reads, dtype=broken[0].dtype)
        self._count += 1
        record.key = _key(broken[0])
        record.backward = self.backward
        self._place(record)
        if not any(held.nan for _, held in reads):
            record.facts = _facts(name, untouched or read, broken[0])
        for tensor in broken:
            self._taint(tensor, record)

    def _place(self, record: Record) -> None:
        node = _node() if self.backward else None
        if node is None:
            # Old releases of torch hide the node that runs: then the place is not known.
            record.moment = -1 if self.backward else len(self.events)
            record.line = _users_line(traceback.extract_stack(sys._getframe(1)))
            return
        record.function = node.name().partition("Backward")[0]
        made = node.metadata.get("traceback_") or []
        record.line = _line_of_text(made)
        record.moment = self.moment_of(node._sequence_nr())

    def _taint(self, tensor: Tensor, record: Record) -> None:
        # The storage is kept, so that its address cannot become another tensor's.
        self._tainted[_key(tensor)] = (record, tensor.untyped_storage())


def _key(tensor: Tensor) -> int:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse
        return id(tensor)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.layout == torch.strided else []
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _arguments(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the tensors that an operation reads, and those that it writes to."""
    read: list[Tensor] = []
    written: list[Tensor] = []
    names = func._schema.arguments
    given = [*zip(names, args, strict=False)]
    given += [(argument, kwargs[argument.name]) for argument in names if argument.name in kwargs]
    training = any(a.name in ("training", "train") and value is True for a, value in given)
    for argument, value in given:
        if training and argument.name.startswith("running_"):
            continue  # statistics of a batch norm, which reads them in evaluation only
        tensors = _tensors(value)
        if argument.alias_info is not None and argument.alias_info.is_write:
            written += tensors
        if argument.name != "out":
            read += tensors
    return read, written


def _facts(name: str, inputs: list[Tensor], output: Tensor) -> dict[str, float]:
    """Say what the inputs of an operation had that made its result non-finite."""
    real = [t.detach() for t in inputs if t.is_floating_point()]
    if not real:
        return {}
    if any(t.numel() == 0 for t in real):
        return {"empty": 1.0}
    facts = {}
    finite = [torch.nan_to_num(t.float() if t.dtype.itemsize < 4 else t, 0, 0, 0) for t in real]
    facts["largest_input"] = max(float(t.abs().max()) for t in finite if t.numel())
    one = finite[0]
    if name.rstrip("_") == "div":
        divisor = inputs[-1].detach()
        one = torch.nan_to_num(divisor.real if divisor.is_complex() else divisor.float(), 0, 0, 0)
    facts["zeros"] = float((one == 0).sum())
    facts["negatives"] = float((one < 0).sum())
    return facts


def _sequence() -> int:
    """Number of autograd nodes that this thread has made so far."""
    with torch.enable_grad():
        node = torch.zeros((), requires_grad=True).clone().grad_fn
    assert node is not None
    return int(node._sequence_nr())


def _node() -> Any:
    current = getattr(torch._C, "_current_autograd_node", None)
    return None if current is None else current()


def _is_foreign(filename: str) -> bool:
    return (
        filename.startswith(("<frozen", _OURS))
        or any(p in filename for p in _PACKAGES)
        or (filename.endswith(f"{os.sep}contextlib.py"))
    )


def _users_line(stack: Iterable[traceback.FrameSummary]) -> tuple[str, int, str]:
    for frame in reversed([*stack]):
        if not _is_foreign(frame.filename):
            return os.path.basename(frame.filename), frame.lineno or 0, (frame.line or "").strip()
    return "", 0, ""


def _line_of_text(stack: Iterable[str]) -> tuple[str, int, str]:
    """The same of a formatted stack, which is what autograd keeps."""
    for entry in reversed([*stack]):
        head, _, text = entry.strip().partition("\n")
        parts = head.split('"')
        if len(parts) == 3 and not _is_foreign(parts[1]):
            number = parts[2].partition("line ")[2].partition(",")[0]
            line = text.strip().partition("\n")[0].strip()
            return os.path.basename(parts[1]), int(number) if number.isdigit() else 0, line
    return "", 0, ""


def _ignore(error: Exception) -> None:
    """An error in a hook of the listener costs a name, nothing else."""
