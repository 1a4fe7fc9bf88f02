"""Passes over one batch as samples: what detectors need, without a step being made.

Judging depth takes what a step would do. It is known beforehand: plain gradient descent would move
each weight along its gradient. So each pass is followed by a step that is only computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from lightning_gradwatch.probe.probe import Probe
from lightning_gradwatch.probe.step import StepContext
from lightning_gradwatch.sample import Sample, Update
from lightning_gradwatch.settings import Settings

#: Passes: what a verdict on depth takes, and one more, which brings the last of its readings.
PASSES = 4

#: Part of the loss that a step is taken to promise: short, so that nobody calls it too long.
_PROMISE = 1e-3


def take_passes(
    module: nn.Module,
    run: Callable[[], Tensor],
    settings: Settings,
    step: int = 0,
    scale: float = 1.0,
) -> list[Sample]:
    """Make forward and backward passes and return what they looked like.

    Writes to `.grad` and to random states; call it inside of `undisturbed`.

    Args:
        module: The module.
        run: Makes a forward pass and returns the loss.
        settings: What to read.
        step: The step of the samples.
        scale: What the loss is multiplied by on its way back.
    """
    errors: list[Exception] = []
    probe = Probe(settings, errors.append)
    probe.attach(module)
    samples: list[Sample] = []
    due: Update | None = None
    try:
        for _ in range(PASSES):
            for parameter in module.parameters():
                parameter.grad = None
            probe.gate.reset(announced=True)
            probe.arm_flow()
            with torch.enable_grad():
                loss = run()
                probe.gate.enter()
                _backward(module, loss * scale if scale != 1.0 else loss)
                probe.gate.leave()
            if scale != 1.0:
                for parameter in module.parameters():
                    if parameter.grad is not None:
                        parameter.grad.div_(scale)
            with torch.no_grad():
                probe.add_loss(loss.detach(), 1.0)
                sample, _ = probe.read(StepContext(step=step))
                samples.append(replace(sample, update=_fit(due, sample)))
                due = _promised(probe, sample)
    finally:
        probe.detach()
    return samples


def _backward(module: nn.Module, loss: Tensor) -> None:
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not any(getattr(p, "_post_accumulate_grad_hooks", None) for p in parameters):
        loss.backward()
        return
    # Hooks that step as soon as a gradient is there must not see it.
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def _promised(probe: Probe, sample: Sample) -> Update | None:
    """Return what a short step of gradient descent would do."""
    width = len(sample.layout.parameters)
    weights = np.full(width, math.nan)
    chosen = [(p, c) for p, c in probe.parameters.moved_by(None) if c >= 0 and p.numel()]
    norms = [torch.linalg.vector_norm(p.detach().abs().double()).reshape(1) for p, _ in chosen]
    for (_, column), norm in zip(chosen, probe.host.fetch(norms), strict=True):
        weights[column] = float(norm[0])
    gradients = np.where(sample.has_grad, sample.grad_norm, math.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(np.nansum(np.square(gradients)))
    loss = abs(sample.loss) if math.isfinite(sample.loss) and sample.loss != 0 else 1.0
    if not 0 < total < math.inf:
        return None
    rate = _PROMISE * loss / total
    with np.errstate(over="ignore", under="ignore"):
        return Update(sample.step, 0, weights, rate * gradients, rate * np.square(gradients))


def _fit(due: Update | None, sample: Sample) -> Update | None:
    """Drop an update whose columns are not those of the sample."""
    return due if due is not None and len(due.weight_norm) == len(sample.grad_norm) else None
