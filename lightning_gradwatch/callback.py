"""`GradWatch`: translates the hooks of a Lightning Trainer into calls of the engine.

The order in which Lightning calls what, and the traps in it, decide every line here; the short of
it, for one optimizer step of automatic optimization:

    on_train_batch_start
      on_before_backward(loss)       the loss is divided by accumulate_grad_batches, times the scale
      on_before_optimizer_step(opt)  gradients are complete, nobody has clipped: read, judge, act
      Trainer(gradient_clip_val), configure_gradient_clipping
      the parameter update           our post hook on the optimizer sees the gradients it used
    on_train_batch_end               all callbacks in order, ModelCheckpoint last
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from lightning_gradwatch.before_start.check import examine
from lightning_gradwatch.before_start.losses import scalar
from lightning_gradwatch.culprit.batches import Window
from lightning_gradwatch.errors import GradWatchWarning
from lightning_gradwatch.lightning_base import callback_base
from lightning_gradwatch.lightning_replay import replay_of, why_not
from lightning_gradwatch.lightning_trainer import TrainerView
from lightning_gradwatch.paced import engine_for
from lightning_gradwatch.parts import check_parts
from lightning_gradwatch.probe.step import StepContext
from lightning_gradwatch.seen import Seen
from lightning_gradwatch.settings import Settings

if TYPE_CHECKING:

    class Callback:
        """Stands for the class that is only known at run time."""

else:
    Callback = callback_base()

#: Instances that wait for their fit, so that two with equal arguments get different state keys.
_WAITING: weakref.WeakSet[GradWatch] = weakref.WeakSet()


Method = TypeVar("Method", bound=Callable[..., Any])


def _protected(method: Method) -> Method:
    """Let no error of ours out of a hook: Lightning would end the run with it."""

    @functools.wraps(method)
    def hook(self: GradWatch, *args: Any, **kwargs: Any) -> Any:
        engine = self._engine
        if engine.pace is not None:  # an empty `with` in its place would cost every hook
            with engine.pace:
                return engine.guard.call("GradWatch", method, self, *args, default=None, **kwargs)
        return engine.guard.call("GradWatch", method, self, *args, default=None, **kwargs)

    return hook  # type: ignore[return-value]  # same signature; None where the method failed


class GradWatch(Seen, Callback):
    """Watches every layer's gradient, says what is wrong and where, and can act on it.

    Add it to the callbacks of a Trainer. With no `actions`, training is bit for bit what it would
    be without.

    Args:
        every_n_steps: Record the gradient norm of every parameter each n-th optimizer step. With
            actions, gradients are read at every step all the same, since an action must not miss
            the step that matters.
        flow_every_n_steps: On these steps, and on the first ten, look into the backward pass: the
            gradient at every module's output, activations, the time profile of recurrent layers,
            and how weights change. 0 hooks no module.
        log_every_n_steps: How often to write to loggers; None: the Trainer's own interval.
        norm_type: The p-norm recorded, > 0 or `"inf"`.
        include: Glob patterns over dotted names of layers or parameters to watch; None: all.
        exclude: The same, to leave out.
        detectors: Objects with `update(sample)`; None: `default_detectors()`. (Typed as `object`
            because LightningCLI would compare a protocol's signatures letter by letter.)
        actions: Objects with `apply(findings, training)`. Empty: training is never touched.
        reporters: Objects with the `Reporter` methods; None: `default_reporters()`, which are the
            Trainer's loggers, the console and the recording.
        record: True: write the recording below the log directory that a logger gives the run, else
            nowhere; a path: there; False: nowhere.
        preflight: Judge the first batch before the first step, as `preflight` does, and report
            what is found with the findings of the run.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A value is out of range; the message shows the value and the choices.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> from lightning_gradwatch import GradWatch
        >>> watch = GradWatch()
        >>> trainer = Trainer(callbacks=[watch], logger=False, enable_checkpointing=False)
        >>> watch.healthy  # nothing has been seen yet
        True
    """

    def __init__(
        self,
        *,
        every_n_steps: int = 1,
        flow_every_n_steps: int = 50,
        log_every_n_steps: int | None = None,
        norm_type: float | str = 2.0,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        detectors: Sequence[object] | None = None,
        actions: Sequence[object] = (),
        reporters: Sequence[object] | None = None,
        record: bool | str | PathLike[str] = True,
        preflight: bool = False,
        budget: float | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(preflight, bool):
            raise TypeError(f"preflight must be True or False, got {preflight!r}")
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
        self._engine = engine_for(settings, *check_parts(detectors, actions, reporters))
        self._restored = False
        self._preflight = preflight
        self._preflight_due = False
        self._window = Window()
        # Lightning asks for the key at every hook of every step.
        self._own_key = self._key()
        self._ordinal = self._next_ordinal()
        _WAITING.add(self)

    # ------------------------------------------------------------------ life

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach: everything exists now, and no tuner or sanity check comes in between."""
        self._engine.guard.reset()
        if not self._restored:
            self._engine.reset()
        self._preflight_due = self._preflight and not self._restored and not trainer.global_step
        self._restored = False
        self._backward_seen = self._batch_has_backward = False
        self._micro_batches = 0
        self._last_step = -1
        self._trial = bool(trainer.fast_dev_run)
        self._open(trainer, pl_module)

    @_protected
    def _open(self, trainer: Any, pl_module: Any) -> None:
        view = TrainerView(trainer, pl_module)
        settings = self._engine.settings
        view.refuse_actions(self._engine.actions)
        self._log_every = view.log_every(settings)
        self._others_may_clip = view.others_may_clip
        self._window.whole = self._engine.actions_want_batches
        run = view.run_info(settings, self._configuration())
        self._engine.start(
            pl_module,
            view.optimizers,
            run,
            view.hands(run, files=self._engine.actions_want_batches),
            reporting=trainer.is_global_zero,
            untrusted=view.untrusted,
        )
        view.warn_of_actions_without_effect(self._engine.actions)

    @_protected
    def _finish(self, failed: bool = False) -> None:
        was_attached = self._engine.attached
        self._window.forget()
        self._engine.stop(failed)
        if was_attached and self._trial:
            self._engine.reset()  # fast_dev_run leaves no trace
        _WAITING.discard(self)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Detach and report."""
        self._finish()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Lightning calls nothing else after an exception or Ctrl-C: detach and report here."""
        self._finish(failed=True)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Make sure of it."""
        self._finish()

    @_protected
    def _before_first_step(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Judge the first batch; random numbers, weights and metrics are afterwards as before."""
        engine = self._engine
        refused = why_not(trainer, pl_module)
        if refused:
            warnings.warn(f"GradWatch: no preflight: {refused}.", GradWatchWarning, stacklevel=2)
            return
        if not engine.attached:
            return
        replay = replay_of(trainer, pl_module, self._window)
        step = TrainerView(trainer, pl_module).step
        try:
            findings, _ = examine(
                pl_module, lambda given: scalar(replay.run(given, batch_idx)), batch,
                engine.settings, engine.diagnosis.facts,
                step=step, batch_idx=batch_idx, scale=replay.scale,
            )  # fmt: skip
        except Exception as error:  # the user's model or batch, which the first step will show too
            warnings.warn(f"GradWatch: no preflight: {error}", GradWatchWarning, stacklevel=2)
            return
        engine.tell(findings, step)

    # ------------------------------------------------------------------ one step

    @_protected
    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Hook modules for the coming step where that is due."""
        self._batch_idx = batch_idx
        self._batch_has_backward = False
        if self._preflight_due:
            self._preflight_due = False
            self._before_first_step(trainer, pl_module, batch, batch_idx)
        if self._engine.attached and self._engine.wants_batches:
            self._window.add(batch, batch_idx)
        self._engine.begin_batch(announced=pl_module.automatic_optimization)

    @_protected
    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        """Remember the loss, undoing Lightning's division for accumulation."""
        automatic = pl_module.automatic_optimization
        if automatic and trainer.global_step == self._last_step:
            return  # a further evaluation of LBFGS's closure within the same step
        self._backward_seen = self._batch_has_backward = True
        self._micro_batches += 1
        self._engine.add_loss(loss, trainer.accumulate_grad_batches if automatic else 1.0)
        self._engine.begin_backward()

    @_protected
    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        """What autograd does from here on is not the backward pass of the loss."""
        self._engine.end_backward()

    @_protected
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Gradients are complete and nobody has clipped them: read, judge, act."""
        if not self._engine.attached:
            return
        view = TrainerView(trainer, pl_module)
        automatic = pl_module.automatic_optimization
        if automatic:
            # SWA with BatchNorm and training_step -> None come here without a backward, DeepSpeed
            # at every micro-batch, LBFGS at every evaluation of its closure (see above).
            if view.is_accumulating or not self._backward_seen:
                return
            # With a scaler Lightning makes no step if the last micro-batch had no backward, and
            # gradients unscaled now would stay so, marked as such, into the next window.
            if view.scaler is not None and not self._batch_has_backward:
                self._backward_seen, self._micro_batches = False, 0
                return
            self._last_step = trainer.global_step
        seen, self._micro_batches = self._micro_batches, 0
        self._backward_seen = False
        self._engine.before_step(
            StepContext(
                step=view.step,
                optimizer=optimizer,
                index=self._engine.index_of(optimizer),
                scaler=view.scaler,
                accumulated=min(seen / trainer.accumulate_grad_batches, 1.0) if automatic else 1.0,
                mean_loss=automatic,
                batch_idx=self._batch_idx,
                epoch=trainer.current_epoch,
                replay=lambda: replay_of(trainer, pl_module, self._window),
                kept=lambda: tuple(self._window.kept),
                lasting=True,
            ),
            may_change=self._others_may_clip,
        )

    @_protected
    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write to the loggers on the steps on which Lightning writes the user's metrics."""
        view = TrainerView(trainer, pl_module)
        if not view.is_accumulating:
            self._window.forget()
        if not view.is_accumulating and (view.step + 1) % self._log_every == 0:
            self._engine.log()

    # ------------------------------------------------------------------ state

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the module's `log`, which Lightning puts on callbacks: the model behind it."""
        kept = {k: v for k, v in self.__dict__.items() if k not in ("log", "log_dict")}
        return kept | {"_window": Window()}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to decide as this one would: plain Python values."""
        return self._engine.guard.call("saving the state", self._engine.state_dict, default={})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where `state_dict` left off."""
        self._engine.reset()
        self._restored = self._engine.guard.call(
            "restoring the state", self._engine.load_state_dict, state_dict, default=False
        )

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Find our state under the key of an equally configured instance, if ours is not there."""
        states = checkpoint.get("callbacks") or {}
        if self.state_key not in states:
            own = self._own_key
            for key, state in states.items():
                if isinstance(key, str) and key.partition("#")[0] == own:
                    self.load_state_dict(state)
                    return

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint: the configuration, numbered if it is there twice."""
        return f"{self._own_key}#{self._ordinal}" if self._ordinal else self._own_key

    def _key(self) -> str:
        config = self._configuration()
        return f"GradWatch{ {k: v for k, v in config.items() if k != 'record'} }"

    def _configuration(self) -> dict[str, Any]:
        engine = self._engine
        parts = {
            "detectors": [type(part).__name__ for part in engine.detectors],
            "actions": [_stable_repr(part) for part in engine.actions],
        }
        return engine.settings.to_dict() | parts

    def _next_ordinal(self) -> int:
        own = self._own_key
        taken = {other._ordinal for other in _WAITING if other._own_key == own}
        return next(i for i in range(len(taken) + 1) if i not in taken)


def _stable_repr(part: object) -> str:
    """Return the repr, unless it is the default one: a resumed process shares no addresses."""
    text = repr(part)
    return type(part).__name__ if f"{id(part):x}" in text.lower() else text
