"""A replay of `training_step` that neither logs, nor steps, nor talks to other processes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lightning_gradwatch.culprit.batches import Window
from lightning_gradwatch.culprit.find import Replay
from lightning_gradwatch.probe.hooks import compiled_modules
from lightning_gradwatch.probe.sharded import is_sharded

#: What a LightningModule offers to write with, and to step with.
_WRITES = ("log", "log_dict", "print")

#: Strategies whose forward pass is a conversation between processes.
_TALKING = ("FSDP", "DeepSpeed", "ModelParallel", "XLA")


class _Silent:
    """Takes every call, attribute and item, and does nothing: stands in for loggers."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self

    def __getitem__(self, _: Any) -> Any:
        return self


def replay_of(trainer: Any, module: Any, window: Window) -> Replay:
    """Return how to replay the step that the Trainer is about to make."""
    precision = trainer.strategy.precision_plugin

    def run(batch: Any, index: int) -> Tensor | None:
        with silenced(module, trainer), precision.train_step_context():
            return loss_of_step(module, batch, index)

    scaler = getattr(precision, "scaler", None)
    return Replay(
        module,
        run,
        tuple(window.kept),
        scale=float(scaler.get_scale()) if scaler is not None else 1.0,
        refused=why_not(trainer, module),
        ranks=int(trainer.world_size),
    )


def loss_of_step(module: Any, batch: Any, index: int) -> Tensor | None:
    """Call `training_step` as the Trainer does, and return its loss."""
    wanted = inspect.signature(module.training_step).parameters
    takes_index = len(wanted) >= 2 or any(
        p.kind is inspect.Parameter.VAR_POSITIONAL for p in wanted.values()
    )
    output = module.training_step(batch, index) if takes_index else module.training_step(batch)
    return output.get("loss") if isinstance(output, Mapping) else output


@contextmanager
def silenced(module: nn.Module, trainer: Any = None) -> Iterator[None]:
    """Let `self.log`, `self.print` and loggers do nothing; whoever wants to step gets an error."""
    touched: list[tuple[dict[str, Any], str]] = []
    for child in module.modules():
        if hasattr(type(child), "training_step"):
            for name in (*_WRITES, "manual_backward"):
                attributes = vars(child)
                if name not in attributes:  # a user's own is left alone
                    attributes[name] = _refuse if name == "manual_backward" else _nothing
                    touched.append((attributes, name))
    loggers = None if trainer is None else trainer.loggers
    if loggers:
        trainer.loggers = [_Silent()]
    try:
        yield
    finally:
        if loggers:
            trainer.loggers = loggers
        for attributes, name in touched:
            attributes.pop(name, None)


def _nothing(*_: Any, **__: Any) -> None:
    """In place of `self.log`."""


def _refuse(*_: Any, **__: Any) -> None:
    raise RuntimeError("training_step steps by itself (manual optimization)")


def why_not(trainer: Any, module: Any) -> str:
    """Return why `training_step` cannot be called outside of its turn; "" if it can."""
    if not module.automatic_optimization:
        return "under manual optimization training_step would step"
    if compiled_modules(module):
        return "the model is compiled"
    name = type(trainer.strategy).__name__
    if any(word in name for word in _TALKING) or any(is_sharded(p) for p in module.parameters()):
        return f"the forward pass under {name} needs all processes"
    if "dataloader_iter" in inspect.signature(module.training_step).parameters:
        return "training_step draws its own batches (dataloader_iter)"
    return ""
