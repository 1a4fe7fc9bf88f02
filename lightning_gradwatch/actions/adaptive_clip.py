"""Adaptive gradient clipping (AGC): every unit's gradient is limited by the size of its weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions.snapshot import Trained
from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.errors import ConfigurationError, GradWatchWarning, check_number
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.probe.parameters import layer_of_parameter


class AdaptiveClip:
    """Limits the gradient of each unit to `clip_factor` times the norm of its weights.

    A unit is what feeds one output: a row of a linear layer, a filter of a convolution, a row of an
    embedding. Biases, gains and other vectors are one unit each. Where the gradient norm is above
    `clip_factor * max(weight norm, eps)`, it is scaled down to that; other units are left alone bit
    for bit. The last layer is not clipped, as the authors found best.

    The scale of the loss plays a part, for plain SGD as it should: the limit is on how far one step
    of learning rate 1 would move a unit, in its own size. Under Adam it mostly plays none.

    Args:
        clip_factor: λ, > 0. Large batches want small ones: 0.01 at 4096 samples, more for fewer.
        eps: Least weight norm reckoned with, > 0, so that weights that are zero can move.
        exclude: Glob patterns over dotted names of layers or parameters that are not clipped; None:
            the last layer of those executed that has a matrix.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range; when the fit starts, parameters that are sharded
            over processes.

    Example:
        >>> AdaptiveClip()
        AdaptiveClip(clip_factor=0.01, eps=0.001, exclude=None)

    References:
        Brock, De, Smith, Simonyan: High-Performance Large-Scale Image Recognition Without
        Normalization. ICML 2021, section 4. https://arxiv.org/abs/2102.06171
    """

    def __init__(
        self,
        clip_factor: float = 0.01,
        eps: float = 1e-3,
        exclude: Sequence[str] | None = None,
    ) -> None:
        self.clip_factor = check_number("clip_factor", clip_factor, above=0)
        self.eps = check_number("eps", eps, above=0)
        patterns = (exclude,) if isinstance(exclude, str) else exclude
        if patterns is not None and not all(isinstance(p, str) and p for p in patterns):
            raise TypeError(f"exclude must be glob patterns like ['head.*'], got {exclude!r}")
        self.exclude = None if patterns is None else tuple(patterns)
        self._warned = False

    def prepare(self, trained: Trained) -> None:
        """Refuse what cannot be clipped by unit.

        Raises:
            ConfigurationError: a parameter is sharded over processes.
        """
        if trained.is_sharded:
            raise ConfigurationError(
                f"{self!r} needs whole units, and the parameters are sharded over processes. Use "
                "ClipGradNorm, ZClip or AutoClip, which need the norm only."
            )

    def apply(self, findings: Sequence[Finding], training: Training) -> ActionRecord | None:
        """Clip the units of this step that are above their limit; findings play no part."""
        last = self._last_layer(training)

        def wanted(name: str) -> bool:
            layer = layer_of_parameter(name)
            if self.exclude is None:
                return layer != last
            return not any(fnmatchcase(n, p) for n in (name, layer) for p in self.exclude)

        names = [name for name, _ in training.named_gradients()]
        if names and not self._warned and not any(map(wanted, names)):
            self._warned = True
            warnings.warn(
                f"{self!r} clips nothing: every layer with a gradient ({', '.join(names[:3])}) is "
                "left out. Say which ones with exclude=[...]; exclude=[] clips all.",
                GradWatchWarning,
                stacklevel=2,
            )
        clipped = training.clip_units(self.clip_factor, self.eps, wanted)
        if clipped is None:
            return None
        reason = (
            f"{clipped.units} units of {len(clipped.parameters)} parameters have a gradient above "
            f"clip_factor {self.clip_factor:g} of their weights, up to {clipped.largest:.4g}"
        )
        name = type(self).__name__
        return ActionRecord(name, training.step, reason, clipped.largest, self.clip_factor)

    @staticmethod
    def _last_layer(training: Training) -> str | None:
        """The last layer with a matrix, of those that have a gradient in this step."""
        layout, there = training.sample.layout, training.sample.has_grad
        columns = [i for i, dim in enumerate(layout.ndim) if dim >= 2 and there[i]]
        last = max((layout.layer_of[i] for i in columns), default=None)
        return None if last is None else layout.layers[last]

    def __repr__(self) -> str:
        return (
            f"AdaptiveClip(clip_factor={self.clip_factor}, eps={self.eps}, exclude={self.exclude})"
        )
