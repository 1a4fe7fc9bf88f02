"""Who takes part in which collective: every process in all of them, also one whose reading failed.

Norms of sharded gradients are added up over processes. One that stays away, because its part of us
failed, would keep all others waiting for ever.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gradwatch.probe.parameters import ParameterMap
from lightning_gradwatch.probe.sharded import ShardedNorms


class Collectives:
    """The collectives of one optimizer step: one before it, and one after it where that is due.

    Args:
        parameters: The parameters of the module.
        norm_type: The p of the norms.
    """

    def __init__(self, parameters: ParameterMap, norm_type: float) -> None:
        self._parameters = parameters
        self._norm_type = norm_type
        self._plan: ShardedNorms | None = None
        self._joined = False  # whether this process has taken part in the one that is due
        self._again: ShardedNorms | None = None

    def begin(self) -> None:
        """A step is about to be read."""
        self._joined = False

    def plan(self, optimizer: torch.optim.Optimizer | None) -> ShardedNorms | None:
        """Return how to read sharded gradients; None where there are none."""
        spread = self._parameters.sharded(optimizer)
        if not spread:
            return None
        if self._plan is None or self._plan.spread is not spread:
            self._plan = ShardedNorms(spread, self._norm_type)
        return self._plan

    def take_part(self, shards: ShardedNorms, failed: bool = False) -> Tensor:
        """Reduce over all processes; see `ShardedNorms.take_part`."""
        vector = shards.take_part(failed)
        self._joined = True
        return vector

    def abstain(self, optimizer: torch.optim.Optimizer | None) -> None:
        """The reading of this step failed, or is switched off: keep no other process waiting."""
        shards = self.plan(optimizer)
        if shards and not self._joined:
            self.take_part(shards, failed=True)
        self._joined = False

    def look_again(self, optimizer: torch.optim.Optimizer | None, may_change: bool) -> None:
        """Say whether sharded gradients are to be read after the step as well, on every process.

        Writing to them leaves no trace, so that this cannot be left to what each one sees.
        """
        self._joined = False
        self._again = self.plan(optimizer) if may_change else None

    def after(self) -> tuple[ShardedNorms, Tensor] | None:
        """Read sharded gradients again, if that is due."""
        again = self._again
        vector = self.take_part(again) if again else None
        self._again, self._joined = None, False
        return None if again is None or vector is None else (again, vector)

    def abstain_after(self) -> None:
        """The same as `abstain`, after the step."""
        if self._again and not self._joined:
            self.take_part(self._again, failed=True)
        self._again, self._joined = None, False
