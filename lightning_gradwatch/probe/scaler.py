"""What a gradient scaler (AMP) has done to the gradients at the moment we read them."""

from __future__ import annotations

from typing import Any

import torch


def is_active(scaler: Any) -> bool:
    """Whether gradients pass through this scaler at all."""
    return scaler is not None and bool(getattr(scaler, "is_enabled", lambda: True)())


def gradients_are_scaled(scaler: Any, optimizer: torch.optim.Optimizer) -> bool:
    """Whether this optimizer's gradients still carry the loss scale.

    Lightning unscales before `on_before_optimizer_step`, but not for fused optimizers, which
    unscale inside their step.
    """
    if not is_active(scaler):
        return False
    states = getattr(scaler, "_per_optimizer_states", {})
    # The states are a defaultdict: looking an unknown optimizer up would create an entry.
    if id(optimizer) not in states:
        return True
    return getattr(states[id(optimizer)].get("stage"), "name", "READY") == "READY"


def scale_tensor(scaler: Any) -> torch.Tensor | None:
    """Return the scale as a tensor, on its device, without a transfer; None without a scaler."""
    if not is_active(scaler):
        return None
    scale = getattr(scaler, "_scale", None)
    if isinstance(scale, torch.Tensor):
        return scale.detach()
    return torch.tensor(float(scaler.get_scale()))
