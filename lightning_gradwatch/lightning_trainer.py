"""What we ask of a Lightning Trainer, private names of it included, in one place.

Read afresh at every use: schedulers are swapped (SWA), accumulation changes by epoch
(GradientAccumulationScheduler), optimizers gain groups (BackboneFinetuning).
"""

from __future__ import annotations

import logging
import platform
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lightning_gradwatch.errors import ConfigurationError, GradWatchWarning
from lightning_gradwatch.hands import Hands
from lightning_gradwatch.probe.trust import DEEPSPEED, FSDP1, untrusted
from lightning_gradwatch.recording.remote import is_remote
from lightning_gradwatch.reporters.protocol import RunInfo
from lightning_gradwatch.settings import Settings
from lightning_gradwatch.unwrapped import said_of_ranks
from lightning_gradwatch.version import __version__

_log = logging.getLogger("lightning_gradwatch")

#: Strategies of Lightning after whose backward pass every process has whole gradients in `.grad`,
#: or DTensors, which say of what they are a part. Classes derived from them are taken for the same.
_KNOWN = {"SingleDeviceStrategy", "DDPStrategy", "ModelParallelStrategy"}
_ELSEWHERE = {"DeepSpeedStrategy": DEEPSPEED, "FSDPStrategy": FSDP1}


class TrainerView:
    """A Trainer and its module as the callback sees them; holds nothing else.

    Args:
        trainer: The `Trainer`.
        module: The `LightningModule`.
    """

    def __init__(self, trainer: Any, module: Any) -> None:
        self._trainer = trainer
        self._module = module

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The raw optimizers."""
        return list(self._trainer.optimizers)

    @property
    def step(self) -> int:
        """The x axis on which Lightning's loggers put the user's metrics."""
        return int(self._trainer.fit_loop.epoch_loop._batches_that_stepped)

    @property
    def is_accumulating(self) -> bool:
        """Whether this micro-batch is not the last of its accumulation window."""
        if not self._module.automatic_optimization:
            return False
        return bool(self._trainer.fit_loop._should_accumulate())

    @property
    def scaler(self) -> Any:
        """The gradient scaler of the precision plugin, or None."""
        return getattr(self._trainer.strategy.precision_plugin, "scaler", None)

    @property
    def others_may_clip(self) -> bool:
        """Whether anyone may change gradients between our reading and the step."""
        if self._trainer.gradient_clip_val:
            return True
        kind = type(self._module)
        return any(
            _is_users(getattr(kind, name, None))
            for name in (
                "configure_gradient_clipping",
                "on_before_optimizer_step",
                "optimizer_step",
            )
        ) or any(
            _is_users(getattr(type(callback), "on_before_optimizer_step", None))
            for callback in self._trainer.callbacks
        )

    def log_every(self, settings: Settings) -> int:
        """Interval of logging, in steps."""
        return int(settings.log_every_n_steps or self._trainer.log_every_n_steps or 50)

    def hands(self, run: RunInfo, files: bool = False) -> Hands:
        """How actions reach this Trainer.

        Args:
            run: What the reporters are told, on rank zero.
            files: Actions write files: let every rank know where to. A collective.
        """
        trainer = self._trainer
        folder = None if run.recording_dir is None else run.recording_dir / "batches"
        if files and trainer.world_size > 1:
            folder = trainer.strategy.broadcast(folder)

        def stop(reason: str) -> None:
            if trainer.is_global_zero and not trainer.should_stop:
                _log.warning("GradWatch ends training: %s", reason)
            trainer.should_stop = True

        def add(numbers: list[float]) -> list[float]:
            if trainer.world_size == 1:
                return numbers
            here = torch.tensor(numbers, dtype=torch.float32, device=trainer.strategy.root_device)
            return [float(v) for v in trainer.strategy.reduce(here, reduce_op="sum").tolist()]

        return Hands(
            schedulers=lambda: [config.scheduler for config in trainer.lr_scheduler_configs],
            stop=stop,
            add=add,
            ranks=trainer.world_size,
            rank=trainer.global_rank,
            folder=folder,
        )

    def run_info(self, settings: Settings, config: Mapping[str, Any]) -> RunInfo:
        """What reporters are told of the run."""
        trainer = self._trainer
        loggers = [] if trainer.fast_dev_run else list(trainer.loggers)
        place = _log_dir(loggers) if trainer.is_global_zero else None
        recording: str | None = None
        if isinstance(settings.record, str):
            recording = settings.record
        elif settings.record and place is not None:
            recording = f"{place.rstrip('/')}/gradwatch"
        remote = is_remote(recording)
        return RunInfo(
            log_dir=None if place is None or is_remote(place) else Path(place),
            recording_dir=None if recording is None or remote else Path(recording),
            recording_address=recording if remote else None,
            loggers=loggers,
            log_every_n_steps=self.log_every(settings),
            config=config,
            environment={
                "lightning_gradwatch": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
                "device": str(trainer.strategy.root_device),
                "strategy": type(trainer.strategy).__name__,
                "precision": str(trainer.precision),
                "model": type(self._module).__name__,
                "optimizers": ", ".join(type(o).__name__ for o in self.optimizers),
            }
            | said_of_ranks(trainer.world_size),
            show_progress=trainer.progress_bar_callback is not None,
        )

    @property
    def untrusted(self) -> str:
        """Why the gradients in `.grad` are not to be measured; "" if they are."""
        strategy = self._trainer.strategy
        kinds = [kind.__name__ for kind in type(strategy).__mro__]
        for kind, reason in _ELSEWHERE.items():
            if kind in kinds:
                return reason
        if self._trainer.world_size > 1 and _KNOWN.isdisjoint(kinds):
            return (
                f"{kinds[0]} is not known here, and what each of its {self._trainer.world_size} "
                "processes finds in .grad may be a part of the gradient"
            )
        if getattr(strategy, "_model_averaging_period", None):
            return f"{kinds[0]} averages models now and then, and gradients differ over its ranks"
        return untrusted(self._module, self.optimizers)

    def refuse_actions(self, actions: Sequence[Any]) -> None:
        """Refuse actions that are given no gradients to act on.

        Raises:
            ConfigurationError: under DeepSpeed, FSDP1 and strategies that are not known.
        """
        reason = self.untrusted if actions else ""
        if reason:
            from lightning_gradwatch.actions.conflicts import refused_without_gradients

            refused = refused_without_gradients(actions, reason)
            if refused:
                raise ConfigurationError(refused)

    def warn_of_actions_without_effect(self, actions: Sequence[Any]) -> None:
        """Say once which actions cannot do anything in this run."""
        clip = self._trainer.gradient_clip_val
        by_norm = str(self._trainer.gradient_clip_algorithm or "norm") in (
            "norm",
            "GradClipAlgorithmType.NORM",
        )
        for action in actions:
            limit = getattr(action, "max_norm", None)
            if by_norm and clip and isinstance(limit, float) and limit >= clip:
                warnings.warn(
                    f"GradWatch: {action!r} comes before Trainer(gradient_clip_val={clip}), which "
                    "clips at least as tightly: the action changes nothing that is not changed "
                    "again. Use one of the two.",
                    GradWatchWarning,
                    stacklevel=2,
                )


def _is_users(method: Any) -> bool:
    """Whether a hook is overridden: Lightning's own, and ours, do not touch gradients."""
    if method is None:
        return False
    home = getattr(method, "__module__", "") or ""
    return not home.startswith(("pytorch_lightning.", "lightning.pytorch.", "lightning_gradwatch."))


def _log_dir(loggers: Sequence[Any]) -> str | None:
    """Directory of the run that a logger gives; an address only where none is local."""
    places = []
    for logger in loggers:
        place = getattr(logger, "log_dir", None)
        if place is None and getattr(logger, "save_dir", None) is not None:
            # W&B, MLflow and others share one directory among runs: name and version tell them.
            parts = (logger.save_dir, logger.name, logger.version)
            place = "/".join(str(part) for part in parts if part is not None)
        if place is not None:
            places.append(str(place))
    return min(places, key=is_remote, default=None)
