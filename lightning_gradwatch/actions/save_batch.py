"""Keeps the batch at which something went wrong, so that it can be looked at and run again."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions.batch_file import save_batch
from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.actions.trigger import in_words
from lightning_gradwatch.culprit.batches import Kept, is_broken, tensors_of
from lightning_gradwatch.errors import GradWatchWarning, check_codes, check_int, check_number
from lightning_gradwatch.finding import Finding

_MB = 1e6


class SaveBatch:
    """Writes the batch of a step with a finding to disk: its data, index and random states.

    `load_batch` reads it back. Of an accumulation window, the micro-batches that hold NaN or Inf
    are written; where none does, all of them. Every process writes its own, since a gradient is
    that of all. Training is not changed.

    Args:
        on: Finding codes that save the batch. At an `exploding` it is that of the step at which it
            was found, and it began earlier.
        max_batches: Files written in a run, by each process, >= 1.
        max_mb: Larger batches are not written, in megabytes, > 0; the record says so.
        folder: Where to; None: `batches` next to the recording, which needs a logger.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or an unknown code.

    Example:
        >>> SaveBatch(on=("nonfinite",), max_batches=3)
        SaveBatch(on=('nonfinite',), max_batches=3, max_mb=100.0, folder=None)
    """

    #: Read by the callback, which keeps the batches of a step for those who want them.
    wants_batches = True

    def __init__(
        self,
        on: Sequence[str] = ("nonfinite", "exploding", "spike"),
        max_batches: int = 10,
        max_mb: float = 100.0,
        folder: str | None = None,
    ) -> None:
        self.on = check_codes("on", on)
        self.max_batches = check_int("max_batches", max_batches, at_least=1)
        self.max_mb = check_number("max_mb", max_mb, above=0)
        if folder is not None and not isinstance(folder, (str, Path)):
            raise TypeError(f"folder must be a path or None, got {folder!r}")
        self.folder = None if folder is None else str(folder)
        self._saved = 0
        self._warned = False

    def find_place(self, folder: Path | None) -> None:
        """Say before the first step if there is nowhere to write to.

        Args:
            folder: Next to the recording; None where there is no logger, or its directory is
                remote, which files of batches cannot be written to.
        """
        if self.folder is None and folder is None:
            self._complain("no logger gives the run a local directory")

    def apply(self, findings: Sequence[Finding], training: Training) -> ActionRecord | None:
        """Write the batch if one of the codes was found on any rank."""
        found = [f for f in findings if f.code in self.on]
        if not found or self._saved >= self.max_batches:
            return None
        why = in_words(max(found, key=lambda f: f.severity))
        folder = training.folder if self.folder is None else Path(self.folder)
        batches = _guilty(training.batches())
        if folder is None or not batches:
            self._complain(
                "no logger gives the run a local directory" if batches else "it is not known"
            )
            return None
        told = [self._save(kept, why, folder, training) for kept in batches[: self._left]]
        return ActionRecord(type(self).__name__, training.step, f"{why}; {'; '.join(told)}")

    @property
    def _left(self) -> int:
        return self.max_batches - self._saved

    def _save(self, kept: Kept, why: str, folder: Path, training: Training) -> str:
        """Write one batch, and return what became of it."""
        self._saved += 1
        size = sum(tensor.nbytes for _, tensor in tensors_of(kept.batch)) / _MB
        if size > self.max_mb:
            return f"batch {kept.index} is not saved: {size:.4g} MB, above max_mb {self.max_mb:g}"
        sample = training.sample
        path = folder / f"step{sample.step}_batch{kept.index}_rank{training.rank}.pt"
        left_out = save_batch(
            path, kept, epoch=sample.epoch, step=sample.step, rank=training.rank, reason=why
        )
        told = f"batch {kept.index} is in {path}"
        if kept.was_changed:
            told += ", as training_step left it: it changes the batch in place"
        return told + (f", without {', '.join(left_out)}" if left_out else "")

    def _complain(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"GradWatch: SaveBatch cannot save the batch: {reason}. Give SaveBatch a folder=, "
                "or the Trainer a logger; in a loop of your own, step(batch=...).",
                GradWatchWarning,
                stacklevel=3,
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the number of files written."""
        return {"saved": self._saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._saved = int(state_dict["saved"])

    def reset(self) -> None:
        """A new run may write as many files again."""
        self._saved = 0
        self._warned = False

    def __repr__(self) -> str:
        return (
            f"SaveBatch(on={self.on}, max_batches={self.max_batches}, max_mb={self.max_mb}, "
            f"folder={self.folder!r})"
        )


def _guilty(batches: Sequence[Kept]) -> list[Kept]:
    """Those that hold NaN or Inf themselves; without any, all."""
    broken = [b for b in batches if any(is_broken(t) for _, t in tensors_of(b.batch))]
    return broken or list(batches)
