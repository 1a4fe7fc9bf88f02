"""Buffers as they were before the batch: a forward pass changes them, whatever becomes of the step.

One batch with NaN turns the running statistics of BatchNorm into NaN for ever. Training does not
notice, since it uses those of the batch; validation does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lightning_gradwatch.actions.snapshot import local


class KeptBuffers:
    """Copies of the buffers that batches change. They lie where the buffers do.

    Args:
        module: The module that is trained.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> kept = KeptBuffers(norm)
        >>> _ = norm(torch.full((3, 2), torch.nan))
        >>> kept.put_back(), norm.running_mean.tolist()
        (3, [0.0, 0.0])
    """

    def __init__(self, module: nn.Module) -> None:
        self._places = [(owner, name) for owner in module.modules() for name in owner._buffers]
        self._copies: dict[tuple[nn.Module, str], tuple[Tensor, int]] = {}
        self.keep()

    @torch.no_grad()
    def keep(self) -> None:
        """Renew the copies of what has changed: what there is now is good."""
        sources, copies = [], []
        for place, buffer in self._now():
            known = self._copies.get(place)
            version = 0 if buffer.is_inference() else buffer._version
            if known is None or known[0].shape != buffer.shape:
                self._copies[place] = (local(buffer).clone(), version)
            elif self._may_differ(place, known[1], version):
                sources.append(local(buffer))
                copies.append(known[0])
                self._copies[place] = (known[0], version)
        if copies:
            torch._foreach_copy_(copies, sources)

    @torch.no_grad()
    def put_back(self) -> int:
        """Undo what has been written since; return how many buffers that concerned."""
        changed = 0
        for place, buffer in self._now():
            known = self._copies.get(place)
            version = 0 if buffer.is_inference() else buffer._version
            if known is None or not self._may_differ(place, known[1], version):
                continue
            if known[0].shape == buffer.shape and not torch.equal(local(buffer), known[0]):
                local(buffer).data.copy_(known[0])
                changed += 1
        return changed

    @torch.no_grad()
    def decide(self, broken: Tensor) -> None:
        """Undo what has been written since, or renew the copies: whatever a flag on a device says.

        Args:
            broken: What there is now is not good, shape ().
        """
        here, copies = [], []
        for place, buffer in self._now():
            known = self._copies.get(place)
            version = 0 if buffer.is_inference() else buffer._version
            if known is None or known[0].shape != buffer.shape:
                self._copies[place] = (local(buffer).clone(), version)
            elif self._may_differ(place, known[1], version):
                now = local(buffer).data  # writing to it leaves no trace, as the kernels do
                torch.where(broken.to(now.device), known[0], now, out=known[0])
                here.append(now)
                copies.append(known[0])
                self._copies[place] = (known[0], version)
        if copies:
            torch._foreach_copy_(here, copies)

    def _now(self) -> list[tuple[tuple[nn.Module, str], Tensor]]:
        held = [((owner, name), owner._buffers.get(name)) for owner, name in self._places]
        return [(place, buffer) for place, buffer in held if buffer is not None]

    @staticmethod
    def _may_differ(place: tuple[nn.Module, str], before: int, now: int) -> bool:
        # The kernels of normalisation write without a trace.
        return before != now or isinstance(place[0], _NormBase)
