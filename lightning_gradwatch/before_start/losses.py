"""From a model and a batch to a loss: what `preflight` accepts."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradwatch.lightning_replay import loss_of_step, silenced

_TELL = (
    "preflight needs a loss: pass loss_fn, called as loss_fn(output, target) for a batch (x, "
    "target), or a LightningModule, whose training_step gives it, or a model that returns a scalar "
    "or something with a `.loss`."
)
#: Names under which a batch that is a dictionary may hold its targets.
_TARGETS = ("target", "targets", "label", "labels", "y")


def loss_function(
    model: nn.Module, batch: Any, loss_fn: Callable[..., Tensor] | None
) -> Callable[[Any], Tensor]:
    """Return what makes a loss of a batch.

    Args:
        model: A module; without `loss_fn`, one that gives a loss itself.
        batch: A tensor, a tuple or list, or a dictionary of the model's arguments.
        loss_fn: Called with the model's output and the target; None: the model gives the loss.

    Raises:
        TypeError: `model` is no module, or `loss_fn` cannot be called.
        ValueError: there is no way to a loss, or `training_step` steps by itself.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if loss_fn is not None and not callable(loss_fn):
        raise TypeError(f"loss_fn must be callable, got {loss_fn!r}")
    if loss_fn is not None:
        return lambda given: scalar(_with(model, given, loss_fn))
    if hasattr(model, "training_step"):
        if not getattr(model, "automatic_optimization", True):
            raise ValueError(
                "training_step steps by itself (manual optimization): pass loss_fn, so that "
                "preflight need not call it"
            )
        return lambda given: scalar(_of_training_step(model, given))
    return lambda given: scalar(_of_output(_call(model, given)))


def on_device_of(model: nn.Module, batch: Any) -> Any:
    """Return the batch with its tensors where the model's are."""
    first = next((p for p in model.parameters()), None)
    if first is None or first.device.type == "meta":
        return batch
    return _moved(batch, first.device)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value if value.device == device else value.to(device)
    if type(value) in (list, tuple):
        return type(value)(_moved(item, device) for item in value)
    if type(value) is dict:
        return {key: _moved(item, device) for key, item in value.items()}
    return value


def fresh(batch: Any) -> Any:
    """Return a copy of a batch that a pass may change; itself if it cannot be copied."""
    try:
        return copy.deepcopy(batch)
    except Exception:
        return batch


def _of_training_step(model: nn.Module, batch: Any) -> Any:
    with silenced(model):
        loss = loss_of_step(model, batch, 0)
    if loss is None:
        raise ValueError("training_step returned no loss for this batch")
    return loss


def _with(model: nn.Module, batch: Any, loss_fn: Callable[..., Tensor]) -> Any:
    if isinstance(batch, Mapping):
        target = next((batch[name] for name in _TARGETS if name in batch), batch)
        wanted = _names(model)
        inputs = {k: v for k, v in batch.items() if k not in _TARGETS or k in wanted}
        return loss_fn(model(**inputs), target)
    if isinstance(batch, (tuple, list)) and len(batch) > 1:
        return loss_fn(model(*batch[:-1]), batch[-1])
    output = _call(model, batch)
    try:
        alone = len(inspect.signature(loss_fn).parameters) == 1
    except (TypeError, ValueError):
        alone = False
    # Without a target the input is one, as for an autoencoder.
    return loss_fn(output) if alone else loss_fn(output, batch)


def _names(model: nn.Module) -> set[str]:
    return set(inspect.signature(model.forward).parameters)


def _call(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, (tuple, list)):
        return model(*batch)
    return model(batch)


def _of_output(output: Any) -> Any:
    if isinstance(output, Mapping) and "loss" in output:
        return output["loss"]
    return getattr(output, "loss", output)


def scalar(loss: Any) -> Tensor:
    """Return a loss that can be backpropagated, shape ().

    Raises:
        ValueError: it is no scalar, or carries no gradient.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"{_TELL} Got {got}.")
    if not loss.requires_grad:
        raise ValueError("the loss does not depend on any parameter that requires a gradient")
    return loss.reshape(())
