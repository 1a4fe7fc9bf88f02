"""Tools to test a detector of your own without training anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from lightning_gradwatch.finding import Finding
from lightning_gradwatch.layers import Layout, combine_norms
from lightning_gradwatch.sample import Sample, Update


class _Detector(Protocol):
    def update(self, sample: Sample) -> Iterable[Finding]: ...


def make_sample(
    step: int = 0,
    grad_norm: Sequence[float | None] | Mapping[str, float | None] = (1.0,),
    *,
    weight_norm: Sequence[float] | None = None,
    update_norm: Sequence[float] | None = None,
    descent: Sequence[float] | None = None,
    layout: Layout | None = None,
    **fields: Any,
) -> Sample:
    """Build a `Sample` from gradient norms.

    Args:
        step: Its step.
        grad_norm: Norm of each parameter; None for a parameter without gradient. A mapping names
            the parameters; a sequence gives `layer0.weight`, `layer1.weight` and so on.
        weight_norm: Norm of each weight; given, the sample carries an `Update` of this step.
        update_norm: Norm of each weight's change; default 0.001 of the weight.
        descent: Expected decrease of the loss by parameter; default gradient norm x update norm.
        layout: Names and sizes, if the defaults (100 elements each) do not do.
        **fields: Anything else that `Sample` has, such as `loss=` or `optimizer=`.

    Returns:
        A sample with layer norms and global norm filled in.

    Example:
        >>> make_sample(3, {"a.weight": 3.0, "a.bias": 4.0}).layer_grad_norm
        array([5.])
    """
    named = (
        dict(grad_norm)
        if isinstance(grad_norm, Mapping)
        else {f"layer{i}.weight": g for i, g in enumerate(grad_norm)}
    )
    layout = layout or Layout.of(dict.fromkeys(named, 100))
    values = [named[name] for name in layout.parameters]
    has_grad = np.array([v is not None for v in values], dtype=np.bool_)
    norms = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    norm_type = float(fields.get("norm_type", 2.0))
    present = np.where(has_grad, norms, 0.0)
    by_layer = layout.reduce_layers(present, norm_type)
    any_grad = (
        np.maximum.reduceat(has_grad, layout.layer_starts) if len(has_grad) else np.zeros(0, bool)
    )
    total = combine_norms(present, norm_type) if has_grad.any() else float("nan")
    if weight_norm is not None and "update" not in fields:
        weights = np.asarray(weight_norm, dtype=np.float64)
        moved = 1e-3 * weights if update_norm is None else np.asarray(update_norm, np.float64)
        falls = present * moved if descent is None else np.asarray(descent, np.float64)
        fields["update"] = Update(step, int(fields.get("optimizer", 0)), weights, moved, falls)
    return Sample(
        step=step,
        layout=layout,
        grad_norm=norms,
        has_grad=has_grad,
        layer_grad_norm=np.where(any_grad, by_layer, np.nan),
        global_norm=total,
        **fields,
    )


def replay(detector: _Detector, samples: Iterable[Sample]) -> list[Finding]:
    """Feed samples to a detector and return everything it said, in order."""
    return [finding for sample in samples for finding in detector.update(sample)]
