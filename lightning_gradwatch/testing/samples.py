"""Single samples from a few numbers, in a row as the engine would hand them on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from lightning_gradwatch.finding import Finding
from lightning_gradwatch.layers import Layout, combine_norms
from lightning_gradwatch.sample import Sample, Update


class Updates(Protocol):
    """Anything with `update`: all that a detector needs to have."""

    def update(self, sample: Sample) -> Iterable[Finding]:
        """Look at a sample."""
        ...


def make_sample(
    step: int = 0,
    grad_norm: Sequence[float | None] | Mapping[str, float | None] = (1.0,),
    *,
    weight_norm: Sequence[float] | None = None,
    update_norm: Sequence[float] | None = None,
    descent: Sequence[float] | None = None,
    agreement: float = float("nan"),
    layout: Layout | None = None,
    **fields: Any,
) -> Sample:
    """Build a `Sample` from gradient norms.

    Args:
        step: Its step.
        grad_norm: Norm of each parameter; None for a parameter without gradient. A mapping names
            the parameters; a sequence gives `layer0.weight`, `layer1.weight` and so on.
        weight_norm: Norm of each weight; given, the sample carries an `Update` of this step. In a
            real run it arrives with the next sample: see `deliver`.
        update_norm: Norm of each weight's change; default 0.001 of the weight.
        descent: Expected decrease of the loss by parameter; default gradient norm x update norm.
        agreement: Cosine between this gradient and that of the measured step before.
        layout: Names and sizes, if the defaults (100 elements each) do not do.
        **fields: Anything else that `Sample` has, such as `loss=`, `optimizer=`, or `flow=` (see
            `make_flow`).

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
        index = int(fields.get("optimizer", 0))
        fields["update"] = Update(step, index, weights, moved, falls, agreement)
    return Sample(
        step=step,
        layout=layout,
        grad_norm=norms,
        has_grad=has_grad,
        layer_grad_norm=np.where(any_grad, by_layer, np.nan),
        global_norm=total,
        **fields,
    )


def deliver(samples: Iterable[Sample]) -> list[Sample]:
    """Hand each sample's update to the sample after it, as in a real run.

    What a step did to the weights is only known after it was made, so that a detector gets to see
    it one sample later; `sample.update.step` says whose it was. The last one is dropped, and so is
    one after which the layout changes, since its columns mean something else.

    Example:
        >>> samples = [make_sample(t, [1.0], weight_norm=[5.0]) for t in range(3)]
        >>> [s.update and s.update.step for s in deliver(samples)]
        [None, 0, 1]
    """
    delivered: list[Sample] = []
    due, layout = None, None
    for sample in samples:
        known = layout is None or layout == sample.layout
        delivered.append(replace(sample, update=due if known else None))
        due, layout = sample.update, sample.layout
    return delivered


def replay(detector: Updates, samples: Iterable[Sample]) -> list[Finding]:
    """Feed samples to a detector and return everything it said, in order.

    Example:
        >>> from lightning_gradwatch.detectors import NonFiniteGradient
        >>> samples = [make_sample(t, [1.0], loss=1.0 if t else float("inf")) for t in range(3)]
        >>> [(f.code, f.first_step) for f in replay(NonFiniteGradient(), samples)]
        [('nonfinite', 0)]
    """
    return [finding for sample in samples for finding in detector.update(sample)]
