"""`GradientWatcher`: the same engine for a training loop of your own."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from lightning_gradwatch.culprit.batches import Kept
from lightning_gradwatch.culprit.find import Replay
from lightning_gradwatch.hands import Hands
from lightning_gradwatch.paced import UNTIMED, engine_for
from lightning_gradwatch.parts import check_parts
from lightning_gradwatch.probe.step import StepContext
from lightning_gradwatch.probe.trust import untrusted
from lightning_gradwatch.recording.remote import is_remote
from lightning_gradwatch.reporters.protocol import RunInfo
from lightning_gradwatch.seen import Seen
from lightning_gradwatch.settings import Settings
from lightning_gradwatch.unwrapped import (
    added_up,
    inner_module,
    inner_optimizer,
    ranks,
    said_of_ranks,
)
from lightning_gradwatch.version import __version__


class GradientWatcher(Seen):
    """Watches the gradients of a bare PyTorch (or Fabric) loop; a context manager.

    Call `step` between `backward()` and `optimizer.step()`, before you clip. With several
    processes (torch.distributed), every one of them has its watcher and calls `step` at every
    step: ranks agree on what actions are given, and rank zero reports.

    Args:
        model: The module that is trained; wrapped by DDP or Fabric or not.
        optimizer: Its optimizer, or several; None: gradients of all parameters are read, and what
            a step changed is not.
        scaler: The gradient scaler, if the loop has one. Call `step` after `scaler.unscale_`, or
            without it: both are understood.
        schedulers: Learning rate schedulers, so that `DecayLR` can make a decay last.
        record: A directory to write the recording to; False: nowhere.
        every_n_steps: As in `GradWatch`, like every argument from here on.
        flow_every_n_steps: See `GradWatch`.
        log_every_n_steps: See `GradWatch`; reporters are asked to log at this interval.
        norm_type: See `GradWatch`.
        include: See `GradWatch`.
        exclude: See `GradWatch`.
        detectors: See `GradWatch`.
        actions: See `GradWatch`. After an action asked for it, `should_stop` is true.
        reporters: See `GradWatch`.
        budget: See `GradWatch`; a step lasts from one call of `step` to the next.

    Attributes:
        should_stop: Reason for which an action asked for the end of training; empty: none did.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A value is out of range.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with GradientWatcher(model, sgd, reporters=[]) as watcher:
        ...     for _ in range(3):
        ...         loss = model(torch.ones(4, 2)).square().mean()
        ...         sgd.zero_grad()
        ...         loss.backward()
        ...         watcher.step(loss=loss)
        ...         sgd.step()
        >>> watcher.history.grad_norm.shape
        (3, 2)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
        *,
        scaler: Any = None,
        schedulers: Sequence[object] = (),
        record: bool | str | PathLike[str] = False,
        every_n_steps: int = 1,
        flow_every_n_steps: int = 50,
        log_every_n_steps: int | None = None,
        norm_type: float | str = 2.0,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        detectors: Sequence[object] | None = None,
        actions: Sequence[object] = (),
        reporters: Sequence[object] | None = None,
        budget: float | None = None,
    ) -> None:
        settings = Settings.check(
            every_n_steps=every_n_steps,
            flow_every_n_steps=flow_every_n_steps,
            log_every_n_steps=log_every_n_steps,
            norm_type=norm_type,
            include=include,
            exclude=exclude,
            record=record,
            budget=budget,
        )
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        given: Sequence[Any] = (
            (optimizer,) if hasattr(optimizer, "param_groups") else optimizer or ()
        )
        self._optimizers: list[torch.optim.Optimizer] = [inner_optimizer(o) for o in given]
        self._untrusted = untrusted(model, self._optimizers)
        self._model = inner_module(model)
        self._scaler = scaler
        self._schedulers = tuple(schedulers)
        self._engine = engine_for(settings, *check_parts(detectors, actions, reporters))
        self._log_every = settings.log_every_n_steps or 50
        self._step = 0
        self.should_stop = ""

    def __enter__(self) -> GradientWatcher:
        settings = self._engine.settings
        place = settings.record if isinstance(settings.record, str) else None
        remote = is_remote(place)
        folder = Path(place) if place is not None and not remote else None
        rank, count = ranks()
        self._engine.start(
            self._model,
            self._optimizers,
            RunInfo(
                recording_dir=folder,
                recording_address=place if remote else None,
                log_every_n_steps=self._log_every,
                config=settings.to_dict(),
                environment={
                    "lightning_gradwatch": __version__,
                    "torch": torch.__version__,
                    "python": platform.python_version(),
                    "model": type(self._model).__name__,
                    "optimizers": ", ".join(type(o).__name__ for o in self._optimizers),
                }
                | said_of_ranks(count),
            ),
            Hands(
                schedulers=lambda: self._schedulers,
                stop=self._stop,
                add=added_up,
                ranks=count,
                rank=rank,
                folder=None if folder is None else folder / "batches",
            ),
            reporting=rank == 0,
            untrusted=self._untrusted,
        )
        self._engine.begin_batch()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._engine.stop(failed=error is not None)

    def _replay(self, forward: Callable[[], torch.Tensor]) -> Replay:
        scale = 1.0 if self._scaler is None else float(self._scaler.get_scale())
        batches = [Kept(None, self._step, {})]  # the closure has its own
        return Replay(self._model, lambda batch, index: forward(), batches, scale)

    def _stop(self, reason: str) -> None:
        self.should_stop = reason

    def step(
        self,
        loss: torch.Tensor | None = None,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        step: int | None = None,
        replay: Callable[[], torch.Tensor] | None = None,
        batch: Any = None,
    ) -> None:
        """Read the gradients that the optimizer is about to use, judge them, act on them.

        Args:
            loss: The loss they came from, one element; without it some findings are less certain.
            optimizer: Which optimizer is about to step, if there are several.
            step: Position on the x axis; default: the number of calls so far.
            replay: Makes the forward pass of this step once more and returns the loss. Called only
                where NaN or Inf was found, to name the module that produced it; what it changes in
                the model is put back. Under DDP, let it call the module inside the wrapper.
            batch: The batch, for `SaveBatch`.

        Raises:
            RuntimeError: called outside the `with` block.
        """
        if not self._engine.attached:
            raise RuntimeError("GradientWatcher.step() was called outside its `with` block")
        with self._engine.pace or UNTIMED:
            if self._step and self._step % self._log_every == 0:
                self._engine.log()
            if loss is not None:
                self._engine.add_loss(loss if self._scaler is None else self._scaler.scale(loss))
            first = self._optimizers[0] if self._optimizers else None
            chosen = first if optimizer is None else inner_optimizer(optimizer)
            self._engine.before_step(
                StepContext(
                    step=self._step if step is None else step,
                    optimizer=chosen,
                    index=self._engine.index_of(chosen),
                    scaler=self._scaler,
                    batch_idx=self._step,
                    replay=None if replay is None else lambda: self._replay(replay),
                    kept=lambda: () if batch is None else (Kept(batch, self._step, {}),),
                ),
                may_change=True,
            )
            if chosen is None:
                self._engine.after_step()
            self._step += 1
            self._engine.begin_batch()
