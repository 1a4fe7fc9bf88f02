"""Time profile: how strongly the loss depends on a recurrent module's input, step by step.

The recurrent path is inside a fused kernel and weight gradients hide it, because the last time
steps dominate them. The gradient with respect to the input contains it (Pascanu et al. 2013).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lightning_gradwatch.layers import ROOT
from lightning_gradwatch.probe.hooks import Hook, HookSet
from lightning_gradwatch.probe.parameters import clean_name
from lightning_gradwatch.probe.places import Inventory
from lightning_gradwatch.sample import Floats, TimeProfile


class TimeProbe:
    """Hooks the inputs of `nn.RNN`, `nn.LSTM` and `nn.GRU` while armed.

    An input that carries no gradient (raw data) is replaced by an alias that does, so that its
    gradient is computed too; values, weights' gradients and the caller's tensor stay as they are.

    Args:
        module: The root module.
        failed: Told of an exception inside a hook.
        counts: Whether the backward pass that runs now is one of the loss.
    """

    def __init__(
        self,
        module: nn.Module,
        failed: Callable[[Exception], None],
        counts: Callable[[], bool] = lambda: True,
    ) -> None:
        self._inventory = Inventory(module, _recurrent)
        self._failed = failed
        self._counts = counts
        self._hooks = HookSet(on_modules=True)
        self._squares: dict[str, Tensor] = {}

    def arm(self) -> None:
        """Hook the modules for the batches of one optimizer step."""
        if self._hooks:
            return
        self._squares.clear()
        modules, names = self._inventory.take()
        if not any(names):
            return
        for module, name in zip(modules, names, strict=True):
            if name:
                hook = Hook(self._forward, name, self._failed)
                self._hooks.add(hook, module.register_forward_pre_hook(hook))

    @property
    def is_armed(self) -> bool:
        """Whether layers are hooked."""
        return bool(self._hooks)

    def disarm(self) -> None:
        """Remove the hooks and forget what they saw."""
        if not self._hooks:
            return
        self._hooks.remove()
        self._squares.clear()

    def _forward(self, name: str, module: nn.RNNBase, args: tuple[Any, ...]) -> Any:
        if not args or not torch.is_grad_enabled() or not module.training:
            return None
        first = args[0]
        data = first.data if isinstance(first, PackedSequence) else first
        if not isinstance(data, Tensor) or not data.is_floating_point():
            return None
        sizes = first.batch_sizes if isinstance(first, PackedSequence) else None
        replaced = None
        if not data.requires_grad:
            data = data.detach().requires_grad_()
            given = first._replace(data=data) if isinstance(first, PackedSequence) else data
            replaced = (given, *args[1:])
        time_dim = 1 if sizes is None and module.batch_first and data.dim() == 3 else 0

        def seen(_: str, grad: Tensor) -> None:
            if self._counts():
                with torch.no_grad():
                    self._add(name, grad.detach(), time_dim, sizes)

        hook = Hook(seen, name, self._failed)
        self._hooks.add(hook, data.register_hook(hook))
        return replaced

    def _add(self, name: str, grad: Tensor, time_dim: int, sizes: Tensor | None) -> None:
        # Squares in float64: gradients far back in time are what float32 loses first.
        squares = grad.to(torch.float64).square()
        if sizes is not None:
            chunks = squares.sum(dim=1).split(sizes.tolist())
            by_time = torch.stack([chunk.sum() for chunk in chunks])
        else:
            by_time = squares.sum(dim=[d for d in range(squares.dim()) if d != time_dim])
        before = self._squares.get(name)
        same = before is not None and before.shape == by_time.shape
        self._squares[name] = before + by_time if same and before is not None else by_time

    def take(self, keep: bool = False) -> dict[str, Tensor]:
        """Return the squared norms by time step seen so far, on their device.

        Args:
            keep: Stay armed: other optimizers will step in the same batch.
        """
        if not self._hooks:
            return {}
        squares = dict(self._squares)
        self._squares.clear()
        if not keep:
            self.disarm()
        return squares


def _recurrent(modules: list[tuple[str, nn.Module]]) -> list[str]:
    """Return the names of recurrent modules, and "" for every other."""
    return [(clean_name(n) or ROOT) if isinstance(m, nn.RNNBase) else "" for n, m in modules]


def profile(module: str, squares: Floats, scale: float) -> TimeProfile:
    """Turn fetched squares into a profile, without the loss scale."""
    with np.errstate(invalid="ignore"):
        return TimeProfile(module, np.sqrt(squares) / scale)
