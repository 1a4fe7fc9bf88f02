"""Looking into a step: what our hooks take of it, and the least that reading gradients can take."""

from __future__ import annotations

import operator
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from benchmarks.cost.lane import Stopwatch
from lightning_gradwatch.probe.in_place import read_in_place

#: Hooks of a callback that Lightning calls within a step.
HOOKS = (
    "on_train_batch_start",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_before_zero_grad",
    "on_train_batch_end",
)


class Timed(pl.Callback):
    """Times the hooks of another callback, which does not notice.

    The hooks are replaced on the instance, so that what asks for its class sees no change. What it
    hooks into the optimizer is timed as well; what it hooks into modules is not.

    Args:
        callback: Whose; it comes right before this one in the Trainer's list.
        stopwatch: Adds up.
    """

    def __init__(self, callback: pl.Callback, stopwatch: Stopwatch) -> None:
        self.stopwatch = stopwatch
        for name in HOOKS:
            setattr(callback, name, self._timed(getattr(callback, name)))

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Time what is hooked into the optimizers: it has been by now."""
        for optimizer in trainer.optimizers:
            for hooks in (
                optimizer._optimizer_step_pre_hooks,
                optimizer._optimizer_step_post_hooks,
            ):
                for key, hook in hooks.items():
                    hooks[key] = self._timed(hook)

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time()
            result = call(*args, **kwargs)
            self.stopwatch.seconds += time.thread_time() - start
            return result

        return timed


class Idle(pl.Callback):
    """Overrides what we override and does nothing: what any callback costs."""

    def on_train_batch_start(self, *_: Any) -> None:
        """Nothing."""

    def on_before_backward(self, *_: Any) -> None:
        """Nothing."""

    def on_after_backward(self, *_: Any) -> None:
        """Nothing."""

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Nothing."""

    def on_train_batch_end(self, *_: Any) -> None:
        """Nothing."""


class Reads(Idle):
    """Reads every norm with the compiled reader and throws it away: what is left is ours."""

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        """Read."""
        grads = [p.grad for p in optimizer.param_groups[0]["params"]]
        read_in_place(grads, np.zeros(len(grads)), 2.0)


class Bound(pl.Callback):
    """The bound, in place: from each parameter to its gradient, and one read of as many bytes.

    The gradients are copied into one buffer, which is then read as fast as this machine can (a dot
    product with itself), as warm as the copy has left it. What is measured is the walk and the
    read, not the copy. No reading of the gradients can take less.
    """

    stopwatch = Stopwatch()
    _flat: Tensor | None = None

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        """Measure, after the backward pass, where a monitor would read."""
        parameters = optimizer.param_groups[0]["params"]
        get = operator.attrgetter("grad")
        start = time.thread_time()
        deque(map(get, parameters), maxlen=0)
        walked = time.thread_time() - start
        grads = [p.grad.reshape(-1) for p in parameters if p.grad is not None]
        if self._flat is None:
            self._flat = torch.empty(sum(g.numel() for g in grads))
        torch.cat(grads, out=self._flat)
        start = time.thread_time()
        torch.dot(self._flat, self._flat)
        self.stopwatch.seconds += walked + time.thread_time() - start
