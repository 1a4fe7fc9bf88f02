"""Lowers a learning rate so that it stays lowered, whatever scheduler is at work.

Changing `group["lr"]` alone is undone at the next step by every scheduler that computes the rate
from a starting value it remembers (LambdaLR and all warm-ups built on it, OneCycleLR, the cosines,
CyclicLR, SWALR, and what SequentialLR switches to). So everything that has the unit of a learning
rate is scaled: in the parameter groups and in the schedulers. All of it is part of the optimizer's
and the scheduler's own `state_dict`, so a resumed run continues with the lowered rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

#: Keys of a parameter group that hold learning rates; OneCycleLR and SWALR put theirs there.
_GROUP_KEYS = ("lr", "initial_lr", "max_lr", "min_lr", "swa_lr")
#: Attributes of schedulers that hold one learning rate for each parameter group.
_PER_GROUP = ("base_lrs", "max_lrs", "min_lrs")
#: Attributes that hold one for all groups (or, in schedulers of others, one for each).
_SHARED = ("eta_min", "eta_mins")
#: Those of ReduceLROnPlateau; `eps` is a difference of learning rates there, and only there.
_PLATEAU = ("default_min_lr", "eps")

#: A rate this close above the floor has reached it: a Tensor rate may be a float32.
_AT_FLOOR = 1 + 1e-6

_FAMILIAR = ("torch.optim.lr_scheduler", "torch.optim.swa_utils")


class Change(NamedTuple):
    """A quantity before and after an intervention."""

    before: float
    after: float


def learning_rates(optimizer: Optimizer) -> list[float]:
    """Return the learning rate of each parameter group that has a number for one."""
    return [float(g["lr"]) for g in optimizer.param_groups if _is_rate(g.get("lr"))]


@torch.no_grad()
def scale_learning_rates(
    optimizer: Optimizer, schedulers: Iterable[object], factor: float, min_lr: float = 0.0
) -> Change | None:
    """Multiply every learning rate of an optimizer by `factor`, for good.

    Args:
        optimizer: Its parameter groups are scaled; a Tensor learning rate in place.
        schedulers: Schedulers of any optimizers; those of this one are scaled, nested ones too.
        factor: 0 < factor < 1.
        min_lr: No group is lowered below this. A group that would be is scaled by less, and one
            that has arrived is left alone.

    Returns:
        The learning rate of the first group that changed, before and after; None if none did.
    """
    groups = optimizer.param_groups
    factors = [_factor(group.get("lr"), factor, min_lr) for group in groups]
    lowest = min(factors, default=1.0)
    if lowest == 1.0:
        return None
    first = next(i for i, f in enumerate(factors) if f < 1.0)
    before = float(groups[first]["lr"])
    # Groups may share one Tensor learning rate, which must be scaled once.
    done: set[int] = set()
    for group, own in zip(groups, factors, strict=True):
        for key in _GROUP_KEYS:
            if key in group:
                group[key] = _scaled(group[key], own, done)
    for scheduler in schedulers_of(optimizer, schedulers):
        state = vars(scheduler)
        for name in _PER_GROUP:
            if isinstance(state.get(name), (list, tuple)):
                state[name] = _scaled_list(state[name], factors, done)
        # A floor that all groups share follows the group that is lowered most.
        shared = _SHARED + (_PLATEAU if isinstance(scheduler, ReduceLROnPlateau) else ())
        for name in shared:
            value = state.get(name)
            if isinstance(value, (list, tuple)):
                state[name] = _scaled_list(value, factors, done)
            elif value is not None:
                state[name] = _scaled(value, lowest, done)
        if "_last_lr" in state:
            state["_last_lr"] = [_copied(group["lr"]) for group in groups]
    return Change(before, float(groups[first]["lr"]))


def schedulers_of(optimizer: Optimizer, schedulers: Iterable[object]) -> Iterator[object]:
    """Yield the schedulers of one optimizer, those that wrap others before the wrapped ones."""
    waiting: list[Any] = list(schedulers)
    seen: set[int] = set()
    while waiting:
        scheduler = waiting.pop(0)
        if (
            id(scheduler) in seen
            or getattr(scheduler, "optimizer", None) is not optimizer
            or not callable(getattr(scheduler, "step", None))
            or not hasattr(scheduler, "__dict__")
        ):
            continue
        seen.add(id(scheduler))
        yield scheduler
        for value in vars(scheduler).values():
            waiting.extend(value if isinstance(value, (list, tuple)) else [value])


def all_familiar(optimizer: Optimizer, schedulers: Iterable[object]) -> bool:
    """Whether every scheduler of this optimizer is one of torch's, so that scaling it is exact.

    False without any scheduler: then only code that we cannot see can change the learning rate.
    """
    modules = [type(s).__module__ for s in schedulers_of(optimizer, schedulers)]
    return bool(modules) and all(module in _FAMILIAR for module in modules)


def _factor(rate: object, factor: float, min_lr: float) -> float:
    """How far this group can go: `factor`, less near the floor, 1 at it."""
    if not _is_rate(rate):
        return 1.0
    value = float(rate)  # type: ignore[arg-type]  # _is_rate has made sure
    if not value > min_lr * _AT_FLOOR:
        return 1.0
    return max(factor, min_lr / value)


def _is_rate(value: object) -> bool:
    """A number; some optimizers that find the rate themselves keep None there."""
    return isinstance(value, (float, int, Tensor)) and not isinstance(value, bool)


def _scaled(value: Any, factor: float, done: set[int]) -> Any:
    """Return `value * factor`; a Tensor is changed in place, because optimizers hold on to it."""
    if not isinstance(value, Tensor):
        return value * factor if _is_rate(value) else value
    if id(value) not in done:
        done.add(id(value))
        value.mul_(factor)
    return value


def _scaled_list(values: Sequence[Any], factors: Sequence[float], done: set[int]) -> list[Any]:
    """Scale one value for each group; values without a group of their own stay."""
    scaled = [_scaled(v, f, done) for v, f in zip(values, factors, strict=False)]
    return scaled + list(values[len(scaled) :])


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
