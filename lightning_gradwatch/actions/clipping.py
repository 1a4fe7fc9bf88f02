"""Fixed limits on the gradient: by norm and by value, as in `torch.nn.utils`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions.learning_rate import Change
from lightning_gradwatch.actions.on_device import DeviceTraining
from lightning_gradwatch.actions.pending import Pending
from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.errors import check_number
from lightning_gradwatch.finding import Finding


class ClipGradNorm:
    """Scales all gradients of an optimizer together, so that their norm is at most `max_norm`.

    The direction is kept. A step whose norm is not above `max_norm` is left alone bit for bit, and
    so is one whose gradients are not finite: there is no direction to keep (see `SkipStep`).

    Works on the gradients that the optimizer is about to see: accumulated over micro-batches,
    unscaled under AMP, reduced over ranks; with several optimizers, for each one by itself. Runs
    before the clipping of `Trainer(gradient_clip_val=...)`, so that the tighter of both holds.

    Args:
        max_norm: Largest norm allowed, > 0, in the unit of the gradients. A little above the norm
            of healthy steps (see `watch.report()`) catches the rare large one and no other.
        norm_type: The p of the norm, > 0 or `"inf"`.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of range.

    Example:
        >>> ClipGradNorm(max_norm=1.0)
        ClipGradNorm(max_norm=1.0, norm_type=2.0)

    References:
        Pascanu, Mikolov, Bengio: On the difficulty of training recurrent neural networks.
        ICML 2013. https://arxiv.org/abs/1211.5063
    """

    def __init__(self, max_norm: float, norm_type: float | Literal["inf"] = 2.0) -> None:
        self.max_norm = check_number("max_norm", max_norm, above=0)
        self.norm_type = _check_norm_type(norm_type)

    def apply(self, findings: Sequence[Finding], training: Training) -> ActionRecord | None:
        """Clip this step if its norm is above `max_norm`; findings play no part."""
        change = training.clip_grad_norm(self.max_norm, self.norm_type)
        return None if change is None else self._record(training.step, change)

    def on_device(self, training: DeviceTraining) -> Pending | None:
        """Do the same without a look at the norm; the record follows when it is known."""
        return training.clip_grad_norm(self.max_norm, self.norm_type, self._record)

    def _record(self, step: int, change: Change) -> ActionRecord:
        reason = f"gradient norm {change.before:.4g} is above max_norm {self.max_norm:g}"
        return ActionRecord(type(self).__name__, step, reason, *change)

    def __repr__(self) -> str:
        return f"ClipGradNorm(max_norm={self.max_norm}, norm_type={self.norm_type})"


class ClipGradValue:
    """Limits every single gradient element to [-value, value].

    Bends the direction of the gradient, unlike `ClipGradNorm`, but no other element pays for one
    that is large. NaN stays NaN, Inf becomes `value`, as with `clip_grad_value_`. Of complex
    gradients the real and the imaginary part are limited each for itself.

    Args:
        value: Largest absolute value allowed, > 0, in the unit of the gradients.

    Raises:
        TypeError: `value` is not a number.
        ValueError: `value` is not finite or not above 0.

    Example:
        >>> ClipGradValue(value=0.5)
        ClipGradValue(value=0.5)

    References:
        Mikolov: Statistical Language Models Based on Neural Networks. PhD thesis, Brno University
        of Technology 2012.
    """

    def __init__(self, value: float) -> None:
        self.value = check_number("value", value, above=0)

    def apply(self, findings: Sequence[Finding], training: Training) -> ActionRecord | None:
        """Clip this step if an element is above `value`; findings play no part."""
        change = training.clip_grad_value(self.value)
        return None if change is None else self._record(training.step, change)

    def on_device(self, training: DeviceTraining) -> Pending | None:
        """Do the same without a look at the elements; the record follows when they are known."""
        return training.clip_grad_value(self.value, self._record)

    def _record(self, step: int, change: Change) -> ActionRecord:
        reason = f"largest gradient element {change.before:.4g} is above value {self.value:g}"
        return ActionRecord(type(self).__name__, step, reason, *change)

    def __repr__(self) -> str:
        return f"ClipGradValue(value={self.value})"


def _check_norm_type(norm_type: object) -> float:
    if norm_type == "inf" or norm_type == math.inf:
        return math.inf
    if isinstance(norm_type, str):
        raise ValueError(f"norm_type must be a number > 0 or 'inf', got {norm_type!r}")
    return check_number("norm_type", norm_type, above=0)
