"""Bugs to inject: in the data, in the loss, in what the optimizer is given."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.zoo.tasks import Task

#: What spoils the training data.
DATA = ("nan_input", "inf_input", "nan_target")

#: What the optimizer is not given.
OPTIMIZER = ("bias_only", "stale_copy", "head_bias_only")


def spoil(task: Task, fault: str) -> tuple[Tensor, Tensor]:
    """Return the inputs and targets that are trained on."""
    x, y = task.x, task.y
    if fault in ("nan_input", "inf_input"):
        x = x.clone()
        x.view(len(x), -1)[len(x) // 3, 0] = float("nan" if fault == "nan_input" else "inf")
    elif fault == "nan_target":
        y = y.clone()
        y[len(y) // 4] = float("nan")
    return x, y


def _masked_norm(output: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A norm for each sample, masked: at the sample that is masked the root's slope is infinite."""
    first = x.flatten(1)[:, 0]
    mask = (first < MASKED).to(output.dtype)[:, None]
    target = y if y.is_floating_point() else nn.functional.one_hot(y, output.shape[-1])
    return ((output - target) * mask).square().sum(-1).sqrt().mean()


#: Inputs beyond this are masked by `_masked_norm`.
MASKED = 2.2


def _log_of_share(output: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Shares of ReLU outputs as probabilities: the log of an exact zero."""
    positive = output.relu()
    share = positive / positive.sum(-1, keepdim=True)
    return -share.gather(-1, y[..., None]).log().mean()


def _entropy(output: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with an entropy bonus written as p log p: 0 x -inf once the net is sure."""
    share = (8 * output).softmax(-1)
    bonus = (share * share.log()).sum(-1).mean()
    return nn.functional.cross_entropy(output, y) + 0.01 * bonus


def _empty_mean(output: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The mean over the samples of each class: 0 / 0 where a batch has none of it."""
    each = nn.functional.cross_entropy(output, y, reduction="none")
    return torch.stack([each[y == k].mean() for k in range(output.shape[-1])]).mean()


def _cosine(output: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Standardised by the batch's own spread, which is 0 where all targets are the same."""
    spread = (y - y.mean(0)).square().mean(0).sqrt() if y.is_floating_point() else None
    residual = (output - y) if spread is not None else output
    flat = (x[:, :1] * 0).std(0) + 0.0
    return residual.square().mean() + (0 * output.mean() / flat).sum()


def _half_loss(output: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A loss summed up in half precision, which ends at 65504."""
    target = y if y.is_floating_point() else nn.functional.one_hot(y, output.shape[-1])
    return ((output - target) * 300).square().half().sum().float() / (9e4 * output.numel())


#: Losses with a bug.
LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "sqrt0": _masked_norm,
    "log0": _log_of_share,
    "entropy": _entropy,
    "empty_mean": _empty_mean,
    "zero_spread": _cosine,
    "half_loss": _half_loss,
}

#: All of them.
FAULTS = (*DATA, *OPTIMIZER, *LOSSES, "burst", "ascent")


def parameters_for(net: nn.Module, fault: str) -> list[nn.Parameter]:
    """Return what the optimizer is given."""
    own = [p for p in net.parameters() if p.requires_grad]
    if fault == "bias_only":
        return [p for p in own if p.dim() < 2]
    if fault == "head_bias_only":
        return own[-1:]
    if fault == "stale_copy":
        return [nn.Parameter(p.detach().clone()) for p in own]
    return own
