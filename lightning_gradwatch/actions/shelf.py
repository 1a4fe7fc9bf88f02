"""The snapshots that are held: when the next one is taken, and which is older than the damage."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_gradwatch.actions.memory import available_memory
from lightning_gradwatch.actions.snapshot import Snapshot, Trained
from lightning_gradwatch.errors import ConfigurationError, GradWatchWarning

#: Snapshots held.
SLOTS = 2
#: Calm steps after which a snapshot is known to be older than any damage.
_PROOF = 10
#: A young run is kept more often: after so many steps, or a twentieth of those it has made.
_SOON, _SHARE = 10, 20
#: Share of the free memory that the snapshots may take.
_MOST = 0.8
_GIB = 2**30
_INSTEAD = "Use SkipStep and DecayLR, which keep next to nothing."


@dataclass(frozen=True)
class Kept:
    """A snapshot, and what the guard on the loss knew then."""

    snapshot: Snapshot
    guard: dict[str, Any]


class Shelf:
    """Holds two snapshots of healthy states.

    Args:
        every_n_steps: A snapshot is due each n-th step, in a young run sooner.

    Attributes:
        kept: The snapshots, oldest first.
        steps: Optimizer steps made.
    """

    def __init__(self, every_n_steps: int) -> None:
        self._every = every_n_steps
        self._proof = min(_PROOF, every_n_steps)
        self.kept: list[Kept] = []
        self.steps = 0
        self._taken = 0
        self._calm = 0
        self._proven = False
        self._full = False

    def begin(self, trained: Trained, guard: dict[str, Any]) -> None:
        """Take the first snapshot, unless there is one from a checkpoint.

        Raises:
            ConfigurationError: two do not fit into the memory that is free.
        """
        if not trained.is_ready or self.kept:
            return
        need, free = SLOTS * trained.nbytes, available_memory()
        if free is not None and need > _MOST * free:
            raise ConfigurationError(
                f"Rollback keeps {SLOTS} snapshots of {trained.nbytes / _GIB:.3g} GiB each in host "
                f"memory, more once the optimizer has a state, but {free / _GIB:.3g} GiB are free: "
                f"leave Rollback out. {_INSTEAD}"
            )
        # A resumed run does not begin at step 0, and which one it is is not known yet.
        self.kept = [Kept(Snapshot.take(trained, -1 if self.steps else 0), guard)]

    def follow(
        self, healthy: bool | None, learnt: bool, trained: Trained, step: int, guard: dict[str, Any]
    ) -> bool:
        """Count a step, and take a snapshot before it if one is due.

        Args:
            healthy: Nothing speaks against the state that this step begins with; None: it is left
                out, which says nothing.
            learnt: There are healthier states than the first one.
            trained: What to keep.
            step: The step, on the x axis of the loggers.
            guard: What the guard on the loss knows.

        Returns:
            Whether one was taken.
        """
        if healthy is not None:
            self._calm = self._calm + 1 if healthy else 0
        self._proven |= self._calm >= self._proof
        gap = min(self._every, max(_SOON, self.steps // _SHARE))
        if len(self.kept) == SLOTS and not learnt:
            gap = max(gap, 3 * self._proof)  # so that the second one is proven most of the time
        due = self.steps - self._taken >= gap and self._calm >= self._proof
        take = bool(healthy) and (due or not self.kept) and self._has_room(trained)
        if take:
            # Lets go of one before the copy: of the oldest, unless that is still the healthiest.
            self.kept = self.kept[1 - SLOTS :] if learnt else self.kept[: SLOTS - 1]
            self.kept.append(Kept(Snapshot.take(trained, step), guard))
            self._taken, self._calm, self._proven = self.steps, 0, False
        self.steps += 1
        return take

    def pick(self, oldest: bool) -> Kept:
        """Return the newest snapshot that is older than the damage, and drop what came after it.

        Args:
            oldest: The damage began long ago, or the newest one was of no use.
        """
        if not self._proven or oldest:
            self.kept = self.kept[:1]
        self._taken, self._calm, self._proven = self.steps, 0, True
        return self.kept[-1]

    def _has_room(self, trained: Trained) -> bool:
        """Whether a further snapshot fits; said once if it does not."""
        if self._full:
            return False
        held = self.kept[0].snapshot.nbytes if len(self.kept) == SLOTS else 0
        need, free = trained.nbytes - held, available_memory()
        if free is None or need <= _MOST * free:
            return True
        self._full = True
        warnings.warn(
            f"GradWatch: a snapshot for Rollback takes {need / _GIB:.3g} GiB of host memory, but "
            f"{free / _GIB:.3g} GiB are free: no more are taken, and a rollback goes back to the "
            f"latest one there is, if any. {_INSTEAD}",
            GradWatchWarning,
            stacklevel=2,
        )
        return False

    def to_dict(self, snapshots: bool) -> dict[str, Any]:
        """Return plain types and tensors; the snapshots only if they are wanted."""
        return {
            "steps": self.steps,
            "taken": self._taken,
            "calm": self._calm,
            "proven": self._proven,
            "kept": [{"snapshot": k.snapshot.to_dict(), "guard": k.guard} for k in self.kept]
            if snapshots
            else [],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], every_n_steps: int) -> Shelf:
        """Rebuild what `to_dict` returned."""
        shelf = cls(every_n_steps)
        shelf.steps, shelf._taken = int(data["steps"]), int(data["taken"])
        shelf._calm, shelf._proven = int(data["calm"]), bool(data["proven"])
        shelf.kept = [Kept(Snapshot.from_dict(k["snapshot"]), k["guard"]) for k in data["kept"]]
        return shelf
