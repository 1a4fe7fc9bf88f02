"""`saturated`: activations on their flat parts, where the derivative is about zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lightning_gradwatch.detectors.inside import feeding_layers, inner_rows
from lightning_gradwatch.detectors.learning import Learning
from lightning_gradwatch.detectors.sentences import names
from lightning_gradwatch.detectors.verdict import Verdict
from lightning_gradwatch.errors import check_int, check_number
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.sample import ModuleFlow, Sample

#: Rows remembered between looks.
_MOST = 1024
#: Share of saturated outputs that leaves no hope that it passes.
_HOPELESS = 0.95


class SaturatedActivation:
    """Finds bounded activations (tanh, sigmoid and their kind) that sit on their flat parts.

    An output counts as saturated where the derivative is below 5 % of its largest: no gradient
    passes there. Judged on the steps whose modules are hooked, over the latest `patience` of them.
    Activations behind the last layer are the model's output and may be certain; gates of torch's
    recurrent modules are not looked at, their states are.

    Args:
        fraction: Share of saturated outputs that counts as ill, 0 < fraction <= 1 (healthy
            networks: up to 0.6; ill ones above 0.9).
        patience: Looks in a row that it must last, >= 1.
        warmup: Steps that a network is given to get away from it, >= 0; none if more than 95 %
            are saturated.
        sustained: Steps after which a symptom that does not go away becomes an ERROR, >= 1. It is
            only told as INFO while the outputs or the loss show that the model learns all the same.

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is out of range.

    Example:
        >>> from lightning_gradwatch.testing import make_flow, make_sample, replay
        >>> flow = make_flow(
        ...     {"fc": 1e-9, "tanh": 1e-3, "head": 1.0},
        ...     kinds={"tanh": "Tanh"},
        ...     saturated_fraction={"tanh": 0.97},
        ... )
        >>> samples = [
        ...     make_sample(t, {"fc.weight": 1e-9, "head.weight": 1.0}, flow=flow) for t in range(5)
        ... ]
        >>> finding = replay(SaturatedActivation(), samples)[0]
        >>> finding.first_step, finding.summary
        (2, 'The outputs of tanh (Tanh) lie on its flat parts: 97 % of them, where the derivative \
is below 5 % of its largest.')

    References:
        - Glorot and Bengio (2010), Understanding the difficulty of training deep feedforward
          neural networks
    """

    def __init__(
        self, fraction: float = 0.8, patience: int = 3, warmup: int = 100, sustained: int = 1000
    ) -> None:
        self.fraction = check_number("fraction", fraction, above=0, at_most=1)
        self.patience = check_int("patience", patience, at_least=1)
        self.warmup = check_int("warmup", warmup, at_least=0)
        self.sustained = check_int("sustained", sustained, at_least=1)
        self.reset()

    def reset(self) -> None:
        """Forget the run."""
        self._rows: dict[str, list[float]] = {}  # the first share, then the latest ones
        self._verdicts: dict[int, Verdict] = {}
        self._learning = Learning()

    def update(self, sample: Sample) -> Iterator[Finding]:
        """Look at the activations that the sample carries, if any."""
        modules = sample.flow.modules if sample.flow is not None else None
        verdict = self._verdicts.setdefault(sample.optimizer, Verdict())
        self._learning.see(sample)
        if modules is not None:
            verdict.settle(self._look(sample, modules), sample.step)
        found = verdict.at(sample.step, self.sustained)
        if found is not None:
            yield self._learning.temper(found, sample.optimizer)

    def _look(self, sample: Sample, modules: ModuleFlow) -> Finding | None:
        if np.isnan(modules.saturated_fraction).all():  # no activation that has a limit
            return None
        ill: list[tuple[int, float]] = []
        looked = 0
        for i in inner_rows(sample, modules):
            share = float(modules.saturated_fraction[i])
            if not np.isfinite(share):
                continue
            looked += 1
            name = modules.names[i]
            if name not in self._rows and len(self._rows) >= _MOST:
                continue
            first, *latest = self._rows.get(name, [share])
            latest = [*latest, share][-self.patience :]
            self._rows[name] = [first, *latest]
            young = sample.step < self.warmup
            enough = max(self.fraction, _HOPELESS) if young else self.fraction
            if len(latest) == self.patience and float(np.median(latest)) >= enough:
                ill.append((i, share))
        return self._finding(sample, modules, ill, looked) if ill else None

    def _finding(
        self, sample: Sample, modules: ModuleFlow, ill: list[tuple[int, float]], looked: int
    ) -> Finding:
        rows = [modules.names[i] for i, _ in ill]
        kinds = list(dict.fromkeys(modules.kinds[i] for i, _ in ill))
        share = float(np.median([share for _, share in ill]))
        layers = feeding_layers(sample, modules, [i for i, _ in ill])
        evidence = {
            "saturated_fraction": share,
            "activations": float(len(ill)),
            "activations_seen": float(looked),
            "born_saturated": float(any(self._rows[name][0] >= self.fraction for name in rows)),
        }
        if sample.optimizer:
            evidence["optimizer"] = float(sample.optimizer)
        its = "its flat parts" if len(ill) == 1 else "their flat parts"
        summary = (
            f"The outputs of {names(rows, thing='activation')} ({', '.join(kinds)}) lie on {its}: "
            f"{100 * share:.0f} % of them, where the derivative is below 5 % of its largest."
        )
        step = sample.step
        return Finding("saturated", Severity.WARNING, layers, step, step, 1, evidence, summary)

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen, as plain Python values."""
        return {
            "rows": {name: [*shares] for name, shares in self._rows.items()},
            "verdicts": {str(k): v.to_dict() for k, v in self._verdicts.items()},
            "learning": self._learning.to_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._rows = {str(k): [float(x) for x in v] for k, v in state["rows"].items()}
        self._verdicts = {int(k): Verdict.from_dict(v) for k, v in state["verdicts"].items()}
        self._learning = Learning.from_dict(state["learning"])
