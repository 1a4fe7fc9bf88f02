"""What a replay needs of a batch: a reference to it, its index, the random states before it."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_gradwatch.culprit.undisturbed import random_states

#: Steps that look which random generators are drawn from: the first ones, and each n-th.
LOOKS, LOOK_EVERY = 10, 50

#: So many micro-batches of an accumulation window are kept, the latest ones.
MOST = 16


@dataclass(slots=True)
class Kept:
    """A batch as it was handed to the training step.

    Attributes:
        batch: The batch; containers are copied, tensors are not.
        index: Its index.
        states: Random states before the forward pass, of the generators that it draws from.
        versions: How often each of its tensors had been written to.
    """

    batch: Any
    index: int
    states: dict[str, Any]
    versions: tuple[int, ...] = ()

    @classmethod
    def of(cls, batch: Any, index: int, states: dict[str, Any] | None = None) -> Kept:
        """Keep a batch; costs microseconds.

        Args:
            batch: The batch.
            index: Its index.
            states: Random states; None: those of all generators, as they are now.
        """
        kept = copy.copy(batch) if type(batch) in (list, dict) else batch
        return cls(kept, index, random_states() if states is None else states, _versions(kept))

    @property
    def was_changed(self) -> bool:
        """Whether someone has written to the batch since."""
        return self.versions != _versions(self.batch)

    def fresh(self) -> Any:
        """Return a copy that a replay may change.

        Raises:
            ValueError: the batch was changed in place since, or cannot be copied.
        """
        if self.was_changed:
            raise ValueError("training_step changed the batch in place")
        try:
            return copy.deepcopy(self.batch)
        except Exception as error:
            what = type(self.batch).__name__
            raise ValueError(f"the batch ({what}) cannot be copied: {error}") from error


@dataclass
class Window:
    """The batches of the optimizer step that is being made.

    The states of random generators, dear to read, are kept on steps that look whether a training
    step draws from them, and on all steps once one has.

    Attributes:
        kept: The batches.
        whole: Keep it in any case.
    """

    kept: deque[Kept] = field(default_factory=lambda: deque(maxlen=MOST))
    whole: bool = False
    _steps: int = 0
    _drawn: set[str] = field(default_factory=set)

    def add(self, batch: Any, index: int) -> None:
        """Remember a batch until the step is made."""
        looks = self.whole or self._steps < LOOKS or self._steps % LOOK_EVERY == 0
        states = None if looks else random_states(self._drawn) if self._drawn else {}
        self.kept.append(Kept.of(batch, index, states))

    def forget(self) -> None:
        """Let go of the batches."""
        if not self.kept:
            return
        before = {k: v for k, v in self.kept[0].states.items() if k not in self._drawn}
        if before:
            now = random_states(before)
            self._drawn |= {name for name in before if not _equal(before[name], now[name])}
        self._steps += 1
        self.kept.clear()


def tensors_of(value: Any, path: str = "batch", depth: int = 6) -> Iterator[tuple[str, Tensor]]:
    """Yield `(path, tensor)` of every tensor in a batch.

    Example:
        >>> [path for path, _ in tensors_of((torch.ones(1), {"mask": torch.ones(1)}))]
        ['batch[0]', "batch[1]['mask']"]
    """
    if isinstance(value, Tensor):
        yield path, value
    elif depth and isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_of(item, f"{path}[{key!r}]", depth - 1)
    elif depth and isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from tensors_of(item, f"{path}[{i}]", depth - 1)
    elif depth and is_dataclass(value) and not isinstance(value, type):
        for part in fields(value):
            yield from tensors_of(getattr(value, part.name, None), f"{path}.{part.name}", depth - 1)
    elif depth and hasattr(value, "__dict__"):
        for name, item in vars(value).items():
            if isinstance(item, (Tensor, Mapping)):
                yield from tensors_of(item, f"{path}.{name.lstrip('_')}", depth - 1)


def _equal(state: Any, other: Any) -> bool:
    return torch.equal(state, other) if isinstance(state, Tensor) else bool(state == other)


def _versions(batch: Any) -> tuple[int, ...]:
    return tuple(0 if t.is_inference() else t._version for _, t in tensors_of(batch))


def is_broken(tensor: Tensor) -> bool:
    """Whether a tensor holds NaN or Inf."""
    if tensor.layout != torch.strided:
        tensor = tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.layout != torch.strided:
        return False
    return not bool(torch.isfinite(tensor).all())
