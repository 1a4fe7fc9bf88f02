"""A batch on disk, and what it takes to see it again: its index, the random states before it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_gradwatch.culprit.batches import Kept
from lightning_gradwatch.culprit.undisturbed import set_random_states

#: Version of the layout, which a reader checks.
_FORMAT = 1
_PLAIN = (int, float, bool, str, bytes, type(None))


@dataclass(frozen=True)
class SavedBatch:
    """A batch as `SaveBatch` wrote it.

    Attributes:
        batch: The batch, its tensors on the CPU. Of objects of unknown classes, the tensors and
            plain values in them, by name.
        batch_idx: Its index in the epoch.
        epoch: Epoch, from 0.
        step: Optimizer step, on the x axis of the loggers.
        rank: The process it was fed to.
        reason: Why it was saved.
        states: Random states before its forward pass, for `restore_random_states`.
        left_out: Parts of it that could not be saved, each with the reason.
    """

    batch: Any
    batch_idx: int
    epoch: int
    step: int
    rank: int = 0
    reason: str = ""
    states: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def restore_random_states(self) -> None:
        """Set Python's and torch's generators to what they were: the same dropout once more."""
        if self.states:
            set_random_states(dict(self.states))


def save_batch(path: Path, kept: Kept, **about: Any) -> tuple[str, ...]:
    """Write a batch; a reader never sees half of it.

    Args:
        path: The file.
        kept: The batch, its index and the random states before it.
        **about: `epoch`, `step`, `rank` and `reason`.

    Returns:
        Parts that could not be saved, each with the reason.

    Raises:
        OSError: the file cannot be written.
    """
    left_out: list[str] = []
    batch = portable(kept.batch, left_out)
    states = dict(kept.states)
    if "python" in states:  # tuples within tuples, which loading takes as lists
        version, numbers, gauss = states["python"]
        states["python"] = [version, list(numbers), gauss]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    content = {
        "format": _FORMAT,
        "batch": batch,
        "batch_idx": kept.index,
        "states": states,
        "left_out": left_out,
        **about,
    }
    torch.save(content, partial)
    os.replace(partial, path)
    return tuple(left_out)


def load_batch(path: str | os.PathLike[str]) -> SavedBatch:
    """Read a batch that `SaveBatch` wrote. Only tensors and plain values are loaded, no code.

    Args:
        path: The file, such as `gradwatch/batches/step150_rank0.pt`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not one of `SaveBatch`, or of a later version.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "batch.pt")
        >>> _ = save_batch(path, Kept.of((torch.ones(2), [7]), 3), epoch=0, step=5)
        >>> saved = load_batch(path)
        >>> saved.batch, saved.batch_idx, saved.step
        ((tensor([1., 1.]), [7]), 3, 5)
    """
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"no file {place}: SaveBatch names its files in its records")
    try:
        content = torch.load(place, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{place} is not a batch that SaveBatch wrote: {error}") from error
    if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
        raise ValueError(f"{place} is not a batch that this version of SaveBatch wrote")
    states = content["states"]
    if "python" in states:
        version, numbers, gauss = states["python"]
        states["python"] = (version, tuple(numbers), gauss)
    content["left_out"] = tuple(content["left_out"])
    return SavedBatch(**content)


def portable(value: Any, left_out: list[str], path: str = "batch", depth: int = 8) -> Any:
    """Return a copy of plain types and tensors on the CPU; name in `left_out` what is neither."""
    if isinstance(value, Tensor):
        plain = value.detach().cpu()
        # A view into a large tensor would be written with all that lies behind it.
        return plain.clone() if plain.layout == torch.strided else plain
    if isinstance(value, _PLAIN):
        return value
    if type(value).__module__ == "numpy" and hasattr(value, "dtype"):
        if value.dtype.kind in "biufc":
            return torch.as_tensor(value)
        left_out.append(f"{path}: numpy array of {value.dtype}")
        return None
    if depth and isinstance(value, Mapping):
        return {
            k if isinstance(k, _PLAIN) else str(k): portable(
                v, left_out, f"{path}[{k!r}]", depth - 1
            )
            for k, v in value.items()
        }
    if depth and isinstance(value, (list, tuple)):
        items = [portable(v, left_out, f"{path}[{i}]", depth - 1) for i, v in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if depth and (inner := _inside(value)):
        left_out.append(f"{path}: class {type(value).__qualname__}; its contents are there by name")
        return {
            name: portable(part, left_out, f"{path}.{name}", depth - 1)
            for name, part in inner.items()
        }
    left_out.append(f"{path}: {type(value).__qualname__} is neither a tensor nor a plain value")
    return None


def _inside(value: Any) -> dict[str, Any]:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name, None) for f in fields(value)}
    return dict(getattr(value, "__dict__", {}))
