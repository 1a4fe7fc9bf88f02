"""Ways of saving memory: checkpointed activations, channels last, gradients kept as zeros."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.utils.checkpoint import checkpoint

from lightning_gradwatch import GradWatch
from tests.trainer.models import data, fit, float64_norms, mlp, regression
from tests.trainer.test_norms import assert_equals_truth


class Recomputed(nn.Module):
    """Runs its inside twice: once for the result, once more on the way back."""

    def __init__(self, inside: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.inside, self.reentrant = inside, reentrant

    def forward(self, x: Any) -> Any:
        return checkpoint(self.inside, x, use_reentrant=self.reentrant)


class Plain(nn.Module):
    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Any) -> Any:
        return self.inside(x)


def watched(middle: Any) -> tuple[GradWatch, Any]:
    torch.manual_seed(0)
    first, inside, last = nn.Linear(8, 8), mlp(8, 8, 8), nn.Linear(8, 1)
    model = regression(nn.Sequential(first, nn.Tanh(), middle(inside), last))
    watch = GradWatch(reporters=[])
    fit(model, watch, max_epochs=2)
    return watch, model


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_activations_show_what_plain_ones_do(reentrant):
    plain, _ = watched(Plain)
    watch, model = watched(lambda inside: Recomputed(inside, reentrant))
    assert_equals_truth(watch, model.truth)
    ours, theirs = watch.history, plain.history
    assert ours.layers == theirs.layers
    assert np.array_equal(ours.grad_norm, theirs.grad_norm)
    assert len(ours.flow) == len(theirs.flow) == 10
    for (_, got), (_, wanted) in zip(ours.flow, theirs.flow, strict=True):
        shown = dict(zip(got.modules.names, got.modules.out_grad_norm, strict=True))
        calls = dict(zip(got.modules.names, got.modules.calls, strict=True))
        for name, norm in zip(wanted.modules.names, wanted.modules.out_grad_norm, strict=True):
            assert shown[name] == pytest.approx(norm, rel=1e-6), name
            assert calls[name] == 1, name


def test_wrapper_for_checkpoints_leaves_no_trace_in_names():
    watch, model = watched(checkpoint_wrapper)
    plain, _ = watched(lambda inside: inside)
    assert any("_checkpoint_wrapped_module" in name for name, _ in model.named_parameters())
    assert watch.history.parameters == plain.history.parameters
    assert watch.history.layers == plain.history.layers
    assert np.array_equal(watch.history.grad_norm, plain.history.grad_norm)
    shown = watch.history.flow[0][1].modules
    wanted = plain.history.flow[0][1].modules
    assert set(wanted.names) == set(shown.names)
    assert len(set(shown.names)) == len(shown.names)


class Images(nn.Module):
    def __init__(self, order: torch.memory_format) -> None:
        super().__init__()
        self.order = order
        convolutions = nn.Conv2d(1, 40, 3), nn.ReLU(), nn.Conv2d(40, 200, 3), nn.ReLU()
        self.features = nn.Sequential(*convolutions).to(memory_format=order)
        self.head = nn.Linear(200, 1)

    def forward(self, x: Any) -> Any:
        pixels = x[:, :, None, None].reshape(-1, 1, 8, 1).expand(-1, -1, -1, 8)
        return self.head(self.features(pixels.contiguous(memory_format=self.order)).mean((2, 3)))


def test_channels_last():
    stories = []
    for order in (torch.channels_last, torch.contiguous_format):
        torch.manual_seed(0)
        model = regression(Images(order))
        watch = GradWatch(reporters=[])
        fit(model, watch)
        assert_equals_truth(watch, model.truth)
        stories.append((model, watch))
    (model, watch), (_, plain) = stories
    second = model.net.features[2].weight  # more than 65,536 elements: read by rows
    assert second.grad.is_contiguous(memory_format=torch.channels_last)
    assert watch.history.grad_norm == pytest.approx(plain.history.grad_norm, rel=1e-4)
    for (_, got), (_, wanted) in zip(watch.history.flow, plain.history.flow, strict=True):
        assert got.modules.names == wanted.modules.names
        assert got.modules.out_grad_norm == pytest.approx(wanted.modules.out_grad_norm, rel=1e-4)
        # A unit is a channel in either order of memory.
        np.testing.assert_array_equal(got.modules.units, wanted.modules.units)
        np.testing.assert_array_equal(got.modules.never_active, wanted.modules.never_active)


def test_gradients_kept_as_zeros():
    model = regression(mlp(8, 8, 1))
    kind = type(model)
    kind.optimizer_zero_grad = lambda self, epoch, batch_idx, optimizer: optimizer.zero_grad(
        set_to_none=False
    )
    model.once = nn.Linear(8, 1)
    step = model.training_step

    def training_step(batch: Any, batch_idx: int) -> Any:
        first = batch_idx == 0 and model.current_epoch == 0
        return step(batch, batch_idx) + (model.once(batch[0]).sum() if first else 0.0)

    model.training_step = training_step
    watch = GradWatch(reporters=[])
    fit(model, watch, accumulate_grad_batches=2, max_epochs=2)
    assert_equals_truth(watch, model.truth)
    column = watch.history.parameters.index("once.weight")
    assert watch.history.has_grad[:, column].all()
    assert watch.history.grad_norm[0, column] > 0
    assert (watch.history.grad_norm[1:, column] == 0).all()
    assert watch.history.clipped_norm == pytest.approx(watch.history.global_norm, rel=1e-6)


def test_zeros_do_not_hide_that_a_gradient_was_clipped_after_us():
    """Kept gradients are written in place, which is how we see that someone clipped."""
    model = regression(mlp(8, 8, 1))
    kind = type(model)
    kind.optimizer_zero_grad = lambda self, epoch, batch_idx, optimizer: optimizer.zero_grad(
        set_to_none=False
    )
    watch = GradWatch(reporters=[])
    fit(model, watch, gradient_clip_val=0.05, loader=data())
    assert watch.history.clipped_norm == pytest.approx([0.05] * 5, rel=1e-4)
    assert (watch.history.global_norm > 0.1).all()
    assert float64_norms(model)
