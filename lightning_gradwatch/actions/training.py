"""The only handle through which anything in this package changes training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lightning_gradwatch.actions import gradients as change
from lightning_gradwatch.actions.learning_rate import (
    Change,
    all_familiar,
    learning_rates,
    scale_learning_rates,
)
from lightning_gradwatch.actions.snapshot import Trained
from lightning_gradwatch.actions.unitwise import Clipped, apply_factors, excess
from lightning_gradwatch.culprit.batches import Kept
from lightning_gradwatch.probe.scaler import gradients_are_scaled
from lightning_gradwatch.sample import Sample


class Training:
    """One optimizer step that is about to be made, and what may be done to it.

    The engine builds one for every optimizer step, after the gradients are complete (accumulated,
    reduced over ranks) and before the parameters are updated, and passes it to every action in
    turn. An action therefore finds the gradients as the actions before it left them.

    Args:
        sample: The measurement of this step.
        optimizer: The raw torch optimizer that is about to step; None in a loop that did not name
            one: then there is no learning rate to lower.
        gradients: Returns `(name, parameter)` for every parameter of this optimizer whose `.grad`
            is not None, watched or not, in the same order on every rank.
        schedulers: Returns the scheduler objects of the run, of any optimizer.
        scaler: The gradient scaler (AMP), if any. Gradients that still carry its scale (fused
            optimizers) are unscaled before they are changed for the first time.
        stop: Ends training after this step, given the reason. Must be called on every rank.
        agree: Reduces a decision over ranks with a logical OR. A collective: every rank must make
            the same calls at every step.
        loss: Mean of the losses of all ranks; None: that of the sample.
        trained: All that training changes, so that it can be kept and put back.
        batches: Returns the (micro-)batches of this step, as far as they were kept.
        folder: Where actions may write files; None: nowhere.
        rank: Index of this process.
        last: Nobody changes or reads the gradients between the actions and the step: a fused
            optimizer may scale them in passing.

    Attributes:
        sample: The measurement of this step.
        optimizer: The optimizer that is about to step.
        loss: Mean of the losses of all ranks, the same on each; NaN if it is not known.
        trained: All that training changes; None if nobody told.
        batches: Returns the (micro-)batches of this step, as far as they were kept.
        folder: Where actions may write files; None: nowhere.
        rank: Index of this process.
        global_norm: Norm of all gradients as they are now, of the sample's `norm_type`; 0 after
            the step was skipped.
        touched: Whether the gradients are no longer those that the backward pass left.
        skipped: Whether this step will change nothing.
        stopped: Whether the end of training was asked for.

    Example:
        >>> import torch
        >>> from lightning_gradwatch.testing import make_sample
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> sgd = torch.optim.SGD([weight], lr=0.1)
        >>> training = Training(make_sample(grad_norm=[5.0]), sgd, lambda: [("weight", weight)])
        >>> training.clip_grad_norm(1.0)
        Change(before=5.0, after=1.0)
        >>> weight.grad
        tensor([0.6000, 0.8000])
    """

    def __init__(
        self,
        sample: Sample,
        optimizer: Optimizer | None,
        gradients: Callable[[], Sequence[tuple[str, nn.Parameter]]],
        *,
        schedulers: Callable[[], Iterable[object]] = tuple,
        scaler: Any = None,
        stop: Callable[[str], None] = lambda reason: None,
        agree: Callable[[bool], bool] = bool,
        loss: float | None = None,
        trained: Trained | None = None,
        batches: Callable[[], Sequence[Kept]] = tuple,
        folder: Path | None = None,
        rank: int = 0,
        last: bool = False,
    ) -> None:
        self.sample = sample
        self.optimizer = optimizer
        self.loss = sample.loss if loss is None else loss
        self.trained = trained
        self.batches = batches
        self.folder = folder
        self.rank = rank
        self._last = last
        self._divisor = 1.0
        self.global_norm = sample.global_norm
        self.touched = False
        self.skipped = False
        self.stopped = False
        self._gradients = gradients
        self._schedulers = schedulers
        self._scaler = scaler
        self._stop = stop
        self._agree = agree

    @property
    def step(self) -> int:
        """Position of this step on the x axis of the loggers."""
        return self.sample.step

    def named_gradients(self) -> list[tuple[str, nn.Parameter]]:
        """Return `(name, parameter)` for every parameter this step would move."""
        return [] if self.skipped else self._settled()

    def only_loss_is_nonfinite(self) -> bool:
        """Return whether the loss is NaN or Inf, and every gradient finite all the same.

        Such a step harms no weight. A collective, as `agree` is; it is so only on all ranks.
        """
        lost = self.sample.has_loss and not math.isfinite(self.loss)
        return not self.agree(not (lost and math.isfinite(self.global_norm)))

    def norm(self, norm_type: float = 2.0) -> float | None:
        """Return the norm of all gradients as they are now; None if there is nothing to clip.

        That of the sample's `norm_type` is known; another one costs a pass over the gradients.
        """
        if self._untouchable:
            return None
        return self.global_norm if norm_type == self.sample.norm_type else self._measured(norm_type)

    def clip_grad_norm(self, max_norm: float, norm_type: float = 2.0) -> Change | None:
        """Scale all gradients together so that their norm is at most `max_norm`.

        The factor is `max_norm / norm`, exactly. `torch.nn.utils.clip_grad_norm_` divides by
        `norm + 1e-6`, which differs for norms that are not large against 1e-6. A norm of NaN or
        Inf scales nothing: there is no direction left to keep.

        Args:
            max_norm: Largest norm allowed, > 0.
            norm_type: p > 0, or `inf`. That of the sample needs no second look at the gradients.

        Returns:
            The norm before and after; None if nothing had to be done.
        """
        norm = self.norm(norm_type)
        if norm is None or not math.isfinite(norm) or norm <= max_norm:
            return None
        if self._optimizer_divides(norm / max_norm):
            self._divisor *= norm / max_norm
            self.touched = True
        else:
            change.multiply(self._unscaled(), max_norm / norm)
        same = norm_type == self.sample.norm_type
        self.global_norm = max_norm if same else self.global_norm * (max_norm / norm)
        return Change(norm, max_norm)

    def clip_grad_value(self, value: float) -> Change | None:
        """Limit every gradient element to [-value, value], as `clip_grad_value_` does.

        Inf becomes `value`; NaN stays NaN. Real and imaginary parts are limited each for itself.

        Returns:
            The largest absolute element before and after, apart from NaN; None if nothing had to
            be done.
        """
        # No element exceeds the p-norm, so a small norm (with room for its rounding) settles it.
        if self._untouchable or self.global_norm <= value * (1 - 1e-5):
            return None
        parameters = [parameter for _, parameter in self._settled()]
        scale = self._loss_scale()
        tops = [top / scale for top in change.largest(parameters)]
        above = [p for p, top in zip(parameters, tops, strict=True) if top > value]
        if not above:
            return None
        self._unscaled()
        change.clamp(above, value)
        self.global_norm = change.norm_of(parameters, self.sample.norm_type)
        return Change(max(tops), value)

    def clip_units(
        self, clip_factor: float, eps: float, wanted: Callable[[str], bool]
    ) -> Clipped | None:
        """Limit the gradient of each unit to `clip_factor` times the norm of its weights.

        Args:
            clip_factor: Largest gradient norm over weight norm, > 0.
            eps: Least weight norm reckoned with.
            wanted: Whether a parameter, by its name, is to be clipped.

        Returns:
            What was clipped; None if nothing had to be.
        """
        if self._untouchable:
            return None
        parameters = [p for name, p in self._settled() if wanted(name)]
        clipped, factors = excess(parameters, clip_factor, eps, self._loss_scale())
        if not clipped.units:
            return None
        everything = self._unscaled()
        for i in clipped.parameters:
            apply_factors(parameters[i], factors[i])
        self.global_norm = change.norm_of(everything, self.sample.norm_type)
        return clipped

    def scale_lr(self, factor: float, min_lr: float = 0.0) -> Change | None:
        """Multiply the learning rates of this optimizer by `factor`, for this step and for good.

        Everything that carries a learning rate is scaled, in the parameter groups and in the
        schedulers of this optimizer, so that no scheduler of torch brings the old one back and a
        checkpoint keeps the new one.

        Args:
            factor: 0 < factor < 1.
            min_lr: No parameter group is lowered below this.

        Returns:
            The learning rate of the first parameter group that changed, before and after; None
            if every group is at `min_lr` already.
        """
        if self.optimizer is None:
            return None
        return scale_learning_rates(self.optimizer, self._schedulers(), factor, min_lr)

    def learning_rates(self) -> list[float]:
        """Return the learning rate of every parameter group of this optimizer, as it is now."""
        return [] if self.optimizer is None else learning_rates(self.optimizer)

    def scaling_lr_is_exact(self) -> bool:
        """Whether only schedulers of torch are at work, which `scale_lr` knows in and out."""
        return self.optimizer is not None and all_familiar(self.optimizer, self._schedulers())

    def skip_step(self) -> None:
        """Make the coming update change nothing: no weight, moment, step counter or decay.

        Gradients become None, never zero: with a zero gradient momentum, Adam and weight decay
        still move the weights. Every rank must skip together (see `agree`).
        """
        self._divisor = 1.0
        # A scaler raises on a step for which it has never seen a gradient.
        for parameter in self._unscaled():
            parameter.grad = None
        self.skipped = True
        self.global_norm = 0.0

    def stop(self, reason: str) -> None:
        """End training cleanly after this step; every rank must call it (see `agree`)."""
        self.stopped = True
        self._stop(reason)

    def agree(self, decision: bool) -> bool:
        """Return True on every rank if `decision` is True on any.

        A collective: every rank must call it equally often. Let that depend on nothing but what
        they have in common: the codes of the findings, the mean loss, earlier votes.
        """
        return self._agree(decision)

    def finish(self) -> bool:
        """Leave to the optimizer what it can do in passing; after the last action.

        Returns:
            Whether its attribute `grad_scale` was set, which is to be removed after the step.
        """
        if self._divisor == 1.0 or self.optimizer is None:
            return False
        device = next((p.device for _, p in self._gradients()), None)
        vars(self.optimizer)["grad_scale"] = torch.tensor(self._divisor, device=device)
        return True

    def _optimizer_divides(self, divisor: float) -> bool:
        """Whether the step itself can divide the gradients, which saves reading them once more.

        Fused kernels do so for a gradient scaler, by an attribute of the optimizer. Under a scaler
        it is not ours to set.
        """
        groups = [] if self.optimizer is None else self.optimizer.param_groups
        fused = bool(groups) and all(group.get("fused") for group in groups)
        # All numbers have to fit into float32.
        fits = self._divisor * divisor < 1e30
        return self._last and self._scaler is None and fused and fits

    def _settled(self) -> list[tuple[str, nn.Parameter]]:
        """Return the gradients after all, with what was left to the optimizer done here."""
        found = list(self._gradients())
        if self._divisor != 1.0:
            change.multiply([parameter for _, parameter in found], 1.0 / self._divisor)
            self._divisor = 1.0
        return found

    @property
    def _untouchable(self) -> bool:
        """No gradients, or a scaler that found Inf: it will skip the step and lower its scale."""
        return self.skipped or self.sample.amp_overflow

    def _loss_scale(self) -> float:
        """Factor that the gradients still carry."""
        if self.optimizer is None or not gradients_are_scaled(self._scaler, self.optimizer):
            return 1.0
        return float(self._scaler.get_scale())

    def _measured(self, norm_type: float) -> float:
        parameters = [parameter for _, parameter in self._settled()]
        return change.norm_of(parameters, norm_type) / self._loss_scale()

    def _unscaled(self) -> list[nn.Parameter]:
        """Return the parameters whose gradients are about to be changed, without a loss scale."""
        parameters = [parameter for _, parameter in self.named_gradients()]
        if not parameters:
            return []
        if self.optimizer is not None and gradients_are_scaled(self._scaler, self.optimizer):
            self._scaler.unscale_(self.optimizer)
        self.touched = True
        return parameters
