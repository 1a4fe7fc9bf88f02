"""What the rivals' hooks saw of a run, as arrays: S looks, P parameters, A activations.

The rules read nothing but these numbers; a table is quicker to search for thresholds than objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.zoo.trace import RawActivation, RawWeight, Trace

Array = npt.NDArray[Any]

#: Steps that an epoch has at least, where rules speak of epochs: accuracies of a few batches swing
#: by chance, which is not what a rule on swings of the accuracy was made for.
_EPOCH_AT_LEAST = 20
#: Epochs that a run has at least, if it is long enough: the rules were made for tens of epochs.
_EPOCHS_AT_LEAST = 10
#: Samples of a batch, for the chance in its accuracy; the zoo's usual size.
_BATCH = 32


@dataclass(frozen=True)
class Seen:
    """A run in arrays; NaN where a parameter has no gradient or a module was not called.

    Attributes:
        steps: Planned steps.
        epoch_steps: Steps of an epoch as the rules see it.
        step: Step of each look, shape (S,).
        loss: Loss of its batch, shape (S,).
        accuracy: Accuracy on its batch, NaN for a regression, shape (S,).
        weights: Names of the parameters.
        is_matrix: Two or more dimensions, shape (P,).
        numel: Elements, 1 where unknown, shape (P,).
        norm: L2 norm of the gradient, shape (S, P); so the next four.
        mean_abs: Mean absolute gradient.
        zero: Share of gradient entries that are 0.
        finite: No NaN and no Inf in the gradient; True without one.
        update_ratio: Mean absolute change over mean absolute weight; NaN without a gradient.
        kinds: Classes of the activation modules.
        not_positive: Share of outputs <= 0, shape (S, A); so the rest.
        inactive: Share of units <= 0 for the whole batch.
        low: Smallest input.
        high: Largest input.
        beyond_5: Share of inputs outside [-5, 5].
        output_finite: No NaN and no Inf in the output; True where not called.
    """

    steps: int
    epoch_steps: int
    step: Array
    loss: Array
    accuracy: Array
    weights: tuple[str, ...]
    is_matrix: Array
    numel: Array
    norm: Array
    mean_abs: Array
    zero: Array
    finite: Array
    update_ratio: Array
    kinds: tuple[str, ...]
    not_positive: Array
    inactive: Array
    low: Array
    high: Array
    beyond_5: Array
    output_finite: Array

    @classmethod
    def of(cls, trace: Trace) -> Seen:
        """Read a trace."""
        raw = trace.raw
        weights = _first_by_name(w for look in raw for w in look.weights)
        calls = _first_by_name(a for look in raw for a in look.activations)
        w = _tables([look.weights for look in raw], list(weights), _WEIGHT)
        a = _tables([look.activations for look in raw], list(calls), _ACTIVATION)
        # A parameter without gradient is none that a rule on training would be pointed at.
        w[4, np.isnan(w[0]) & (w[3] != 0)] = np.nan
        layout = trace.samples[0].layout if trace.samples else None
        numel = {} if layout is None else dict(zip(layout.parameters, layout.numel, strict=True))
        at_most = max(_EPOCH_AT_LEAST, trace.steps // _EPOCHS_AT_LEAST)
        return cls(
            steps=trace.steps,
            epoch_steps=min(max(trace.epoch_steps, _EPOCH_AT_LEAST), at_most),
            step=np.array([look.step for look in raw], np.int64),
            loss=np.array([look.loss for look in raw], np.float64),
            accuracy=np.array([look.accuracy for look in raw], np.float64),
            weights=tuple(weights),
            is_matrix=np.array([x.is_matrix for x in weights.values()], np.bool_),
            numel=np.array([numel.get(name, 1) for name in weights], np.float64),
            norm=w[0],
            mean_abs=w[1],
            zero=w[2],
            finite=w[3] != 0,
            update_ratio=w[4],
            kinds=tuple(x.kind for x in calls.values()),
            not_positive=a[0],
            inactive=a[1],
            low=a[2],
            high=a[3],
            beyond_5=a[4],
            output_finite=a[5] != 0,
        )

    @property
    def layers(self) -> dict[str, list[int]]:
        """Columns of the parameters of each layer, that is of what owns them."""
        found: dict[str, list[int]] = {}
        for column, name in enumerate(self.weights):
            found.setdefault(name.rpartition(".")[0], []).append(column)
        return found

    @property
    def epochs(self) -> int:
        """How many epochs are planned."""
        return -(-self.steps // self.epoch_steps)

    @cached_property
    def by_epoch(self) -> tuple[Array, ...]:
        """The rows of each epoch that has any."""
        epoch = self.step // self.epoch_steps
        return tuple(np.flatnonzero(epoch == number) for number in np.unique(epoch))

    @cached_property
    def epoch_loss(self) -> Array:
        """Mean loss of each epoch, shape (E,)."""
        return np.array([np.mean(self.loss[rows]) for rows in self.by_epoch])

    @cached_property
    def epoch_finite(self) -> Array:
        """Whether loss and gradients of each epoch are finite, shape (E,)."""
        bad = self.nonfinite()
        return np.array([not bad[rows].any() for rows in self.by_epoch])

    @cached_property
    def epoch_accuracy(self) -> Array:
        """Mean accuracy of each epoch, shape (E,).

        For a regression the share of the first epoch's loss that is gone, within [-1, 1].
        """
        if not np.isnan(self.accuracy).all():
            return np.array([np.nanmean(self.accuracy[rows]) for rows in self.by_epoch])
        with np.errstate(invalid="ignore", divide="ignore"):
            gone: Array = 1 - self.epoch_loss / self.epoch_loss[:1]
        clipped: Array = np.clip(np.nan_to_num(gone), -1, 1)
        return clipped

    @cached_property
    def epoch_error(self) -> Array:
        """Twice the standard error of `epoch_accuracy` as a few batches tell it, shape (E,)."""
        regression = np.isnan(self.accuracy).all()
        errors = np.zeros(len(self.by_epoch))
        for epoch, rows in enumerate(self.by_epoch):
            with np.errstate(invalid="ignore", over="ignore"):
                first = self.epoch_loss[0] or 1.0
                values = self.loss[rows] / first if regression else self.accuracy[rows]
                error = float(np.std(values)) / np.sqrt(len(rows))
            if not regression:  # never more than chance makes of so many samples
                p = self.epoch_accuracy[epoch]
                chance = np.sqrt(max(p * (1 - p), 0.0) / (_BATCH * len(rows)))
                error = min(error, float(chance))
            errors[epoch] = 2 * float(np.nan_to_num(error))
        return errors

    def nonfinite(self) -> Array:
        """Return whether a look shows a loss or a gradient that is NaN or Inf, shape (S,)."""
        return ~np.isfinite(self.loss) | ~self.finite.all(axis=1)


_WEIGHT = ("grad_norm", "grad_mean_abs", "grad_zero", "grad_finite", "update_ratio")
_ACTIVATION = (
    "not_positive",
    "units_inactive",
    "input_min",
    "input_max",
    "input_beyond_5",
    "finite",
)


def _first_by_name(items: Iterable[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        found.setdefault(item.name, item)
    return found


def _tables(
    rows: Sequence[Sequence[RawWeight | RawActivation]],
    names: list[str],
    fields: tuple[str, ...],
) -> Array:
    """Return an array (field, row, name), NaN where a row lacks a name."""
    column = {name: index for index, name in enumerate(names)}
    table = np.full((len(fields), len(rows), len(names)), np.nan)
    for row, items in enumerate(rows):
        for item in items:
            table[:, row, column[item.name]] = [getattr(item, field) for field in fields]
    return table
