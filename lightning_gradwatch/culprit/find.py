"""Finds the culprit: replays the batches of a step and names where NaN or Inf began."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradwatch.culprit.batches import Kept, is_broken, tensors_of
from lightning_gradwatch.culprit.blame import origin
from lightning_gradwatch.culprit.listen import Event, Listener, Record
from lightning_gradwatch.culprit.undisturbed import set_random_states, undisturbed
from lightning_gradwatch.layers import ROOT
from lightning_gradwatch.probe.parameters import clean_name


@dataclass(frozen=True)
class Replay:
    """How to make the forward pass of a step again.

    Attributes:
        module: The module that is trained.
        run: Makes the forward pass of a batch, given it and its index, and returns the loss;
            neither logs nor steps.
        batches: The batches of the step.
        scale: What the loss is multiplied by before it is backpropagated.
        refused: Why no replay is made; "" if one is.
        ranks: Processes that train together, each on batches of its own.
    """

    module: nn.Module
    run: Callable[[Any, int], Tensor | None]
    batches: Sequence[Kept] = ()
    scale: float = 1.0
    refused: str = ""
    ranks: int = 1


@dataclass(frozen=True)
class Culprit:
    """Where NaN or Inf began.

    Attributes:
        kind: `"batch"`, `"weight"`, `"buffer"`, `"outside"` (a tensor that is neither), `"module"`,
            `"function"` (between modules) or `"loss"`.
        name: The part of the batch, the parameter, the buffer or the module.
        module_kind: Class of the module.
        between: Modules before and after a function.
        operation: The operation, or the function whose derivative it is.
        nan: It made NaN, otherwise Inf.
        backward: In the backward pass.
        tensor: What it is that is not finite: `"output"`, `"gradient"`, `"weight gradient"`.
        batch_idx: Index of the batch; -1: unknown.
        reproduced: By the replay; otherwise seen without one.
        masked: It made NaN of -Inf, which a mask had put there.
        loss_is_finite: Whether the loss of the replay is.
        line: `file`, number and text of the user's line.
        limit: Largest value of the dtype, where a finite input outgrew it; else 0.
        facts: What its inputs had: `largest_input`, `zeros`, `negatives`, `empty`; for sources
            `broken` of `values`.
    """

    kind: str
    name: str
    module_kind: str = ""
    between: tuple[str, str] = ("", "")
    operation: str = ""
    nan: bool = True
    backward: bool = False
    tensor: str = "output"
    batch_idx: int = -1
    reproduced: bool = True
    masked: bool = False
    loss_is_finite: bool = False
    line: tuple[str, int, str] = ("", 0, "")
    limit: float = 0.0
    dtype: str = ""
    facts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What came of the search: a culprit, or why there is none, in one of `ranks` processes."""

    culprit: Culprit | None = None
    why_not: str = ""
    replayed: bool = True
    ranks: int = 1


def find(replay: Replay) -> Answer:
    """Replay the batches of a step until one shows NaN or Inf again; never raises.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2))
        >>> def run(batch, index):
        ...     return torch.log(net(batch) * 0).sum()
        >>> found = find(Replay(net, run, [Kept.of(torch.ones(1, 2), 7)])).culprit
        >>> found.kind, found.operation, found.batch_idx, found.facts["zeros"]
        ('loss', 'log', 7, 2.0)
    """
    if replay.refused:
        return Answer(_without(replay), replay.refused, replayed=False)
    try:
        for kept in replay.batches:
            with undisturbed(replay.module), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                culprit = _search(replay, kept)
            if culprit is not None:
                return Answer(culprit)
    except Exception as error:
        words = str(error).strip().partition("\n")[0] or type(error).__name__
        return Answer(_without(replay), words[:200], replayed=False)
    if not replay.batches:
        return Answer(_without(replay), "the batch is not known", replayed=False)
    return Answer(ranks=replay.ranks)


def _search(replay: Replay, kept: Kept) -> Culprit | None:
    batch = kept.fresh()
    parts = [*tensors_of(batch)]
    listener = Listener([*(("batch", path, t) for path, t in parts), *_state(replay.module)])
    parameters = [p for p in replay.module.parameters() if p.requires_grad]
    results: list[Record]
    owners: dict[int, str] = {}
    if kept.states:
        set_random_states(kept.states)
    with listener.watching(replay.module), torch.enable_grad():
        loss = replay.run(batch, kept.index)
        if not isinstance(loss, Tensor):
            raise ValueError("training_step returned no loss")
        loss = loss if loss.numel() == 1 else loss.sum()
        forward = len(listener.events)
        in_loss = listener.record_of(loss)
        results = [] if in_loss is None else [in_loss]
        if not results and loss.requires_grad and parameters:
            listener.backward = True
            gradients = torch.autograd.grad(
                loss * replay.scale if replay.scale != 1.0 else loss, parameters, allow_unused=True
            )
            with torch.no_grad():
                found = [g for g in gradients if g is not None]
                results = [r for r in map(listener.record_of, found) if r is not None]
            owners = {r.key: "weight gradient" for r in results}
    begin = origin(results)
    if begin is None:
        return None
    if begin.source:
        return _source(begin, parts, replay, kept.index, not in_loss)
    return _operation(begin, listener.events[:forward], kept.index, owners, not in_loss)


def _source(
    record: Record,
    parts: list[tuple[str, Tensor]],
    replay: Replay,
    index: int,
    loss_is_finite: bool,
) -> Culprit:
    named = dict(parts) | {name: tensor for _, name, tensor in _state(replay.module)}
    return Culprit(
        record.source,
        record.operation,
        nan=record.flags.nan,
        batch_idx=index,
        tensor=record.source,
        loss_is_finite=loss_is_finite,
        facts=_count(named.get(record.operation)),
    )


def _operation(
    record: Record,
    events: list[Event],
    index: int,
    owners: dict[int, str],
    loss_is_finite: bool,
) -> Culprit:
    stack: list[Event] = []
    before = ""
    known = record.moment >= 0
    for event in events[: max(record.moment, 0)]:
        if event.begins:
            stack.append(event)
        else:
            before = event.name
            while stack and stack.pop().name != event.name:
                pass
    later = [e for e in events[record.moment :] if known and e.begins and (e.carries or not before)]
    after = later[0].name if later else ""
    inner = stack[-1] if stack else None
    leaf = inner is not None and not any(
        e.name.startswith(f"{inner.name}.") or inner.name == ROOT for e in events
    )
    is_loss = inner is not None and leaf and inner.kind.endswith("Loss")
    if is_loss or (known and not after and (inner is None or inner.name == ROOT)):
        kind = "loss"
    else:
        kind = "module" if inner is not None and inner.name != ROOT else "function"
    finite = not record.reads and not record.flags.nan
    limit = torch.finfo(record.dtype).max if record.dtype.is_floating_point else 0.0
    divides = record.operation.rstrip("_") in ("div", "log", "reciprocal", "rsqrt", "pow")
    outgrown = finite and not (divides and record.facts.get("zeros"))
    return Culprit(
        kind,
        inner.name if inner is not None else "",
        module_kind=inner.kind if inner is not None else "",
        between=(before, after) if not leaf else ("", ""),
        operation=record.function or record.operation,
        nan=record.flags.nan,
        backward=record.backward,
        tensor=owners.get(record.key, "gradient") if record.backward else "output",
        batch_idx=index,
        masked=record.flags.nan and bool(record.reads),
        loss_is_finite=loss_is_finite,
        line=record.line,
        limit=limit if outgrown and "largest_input" in record.facts else 0.0,
        dtype=str(record.dtype).removeprefix("torch."),
        facts=record.facts,
    )


def _state(module: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    for name, parameter in module.named_parameters():
        yield "weight", clean_name(name), parameter
    for name, buffer in module.named_buffers():
        yield "buffer", clean_name(name), buffer


def _without(replay: Replay) -> Culprit | None:
    """Name what can be seen without a replay: numbers that were not finite to begin with."""
    for kept in replay.batches:
        for path, tensor in tensors_of(kept.batch):
            if is_broken(tensor) and bool(tensor.isnan().any()):
                return Culprit(
                    "batch", path, batch_idx=kept.index, reproduced=False, facts=_count(tensor)
                )
    for kind, name, tensor in _state(replay.module):
        if kind == "weight" and type(tensor).__name__ != "DTensor" and is_broken(tensor):
            nan = bool(tensor.isnan().any())
            return Culprit(kind, name, nan=nan, reproduced=False, facts=_count(tensor))
    return None


def _count(tensor: Tensor | None) -> dict[str, float]:
    if tensor is None or tensor.layout != torch.strided:
        return {}
    broken = tensor.numel() - int(torch.isfinite(tensor.detach()).sum())
    return {"broken": float(broken), "values": float(math.prod(tensor.shape))}
