"""Samples of a run that nobody trained: any number of layers, any number of steps."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import numpy as np

from lightning_gradwatch.layers import Layout
from lightning_gradwatch.sample import Flow, Sample, Update
from lightning_gradwatch.testing import make_flow, make_sample

#: Different samples, flows and updates that a run is put together from.
POOL = 32

#: Elements of each weight.
NUMEL = 4096


class Run:
    """A run of layers with a weight and a bias each, as the engine would hand it on.

    Norms vary by a third from step to step; flow and weight changes come when `GradWatch` measures
    them. With `trouble`, one step in 997 has norms a hundred times as high, and one in 9,973 a NaN.

    Args:
        layers: How many.
        trouble: Whether steps are sick now and then.
    """

    def __init__(self, layers: int, trouble: bool = False) -> None:
        self.layers, self.trouble = layers, trouble
        rng = np.random.default_rng(layers)
        names = [f"net.{i}.{part}" for i in range(layers) for part in ("weight", "bias")]
        self.layout = Layout.of(dict.fromkeys(names, NUMEL))
        level = np.exp(rng.normal(0.0, 0.5, len(names)))
        weights = np.full(len(names), 10.0)
        self._samples: list[Sample] = []
        self._updates: list[Update] = []
        self._flows: list[Flow] = []
        for _ in range(POOL):
            norms = level * np.exp(rng.normal(0.0, 0.3, len(names)))
            loss = float(np.exp(rng.normal(0.0, 0.05)))
            named = dict(zip(names, norms.tolist(), strict=True))
            made = make_sample(0, named, layout=self.layout, loss=loss, lr=1e-3)
            moved = 1e-2 * np.exp(rng.normal(0.0, 0.3, len(names)))
            change = Update(0, 0, weights, moved, norms * moved, 0.1)
            self._samples.append(made)
            self._updates.append(change)
            self._flows.append(self._flow(rng, made))

    @property
    def shared(self) -> list[object]:
        """What every sample shares: not to be counted with those that keep a sample."""
        return [self.layout]

    def _flow(self, rng: np.random.Generator, sample: Sample) -> Flow:
        modules = [f"net.{i}" for i in range(self.layers)]
        norms = dict(zip(modules, sample.layer_grad_norm.tolist(), strict=True))
        units = {name: rng.random(64) < 0.9 for name in modules[::2]}
        return make_flow(
            norms,
            kinds=dict.fromkeys(modules[::2], "ReLU"),
            gain=dict.fromkeys(modules, 1.0),
            active=units,
            out_rms=dict.fromkeys(modules, 1.0),
            vectors=dict.fromkeys(modules, 64.0),
        )

    def samples(self, start: int, stop: int) -> Iterator[Sample]:
        """Make the samples of some steps."""
        for step in range(start, stop):
            made = self._samples[(step * 7) % POOL]
            # What a step did to the weights arrives with the next sample.
            before = step - 1
            update = None
            if before >= 0 and (before < 10 or before % 50 <= 1):
                update = replace(self._updates[before % POOL], step=before)
            flow = None
            if step < 10 or step % 50 == 0:
                # As in a run, each has arrays of its own, which the history keeps.
                flow = deepcopy(self._flows[(step // 50) % POOL])
            loss = made.loss * (0.2 + 1.0 / (1.0 + step / 1e4))
            yield self._sick(
                replace(
                    made, step=step, loss=loss, has_loss=True, update=update, flow=flow,
                    clipped_norm=made.global_norm,
                )
            )  # fmt: skip

    def _sick(self, sample: Sample) -> Sample:
        if not self.trouble or not sample.step:
            return sample
        factor = 1.0
        if sample.step % 997 == 0:
            factor = 100.0
        if sample.step % 9973 == 0:
            factor = float("nan")
        if factor == 1.0:
            return sample
        return replace(
            sample,
            grad_norm=sample.grad_norm * factor,
            layer_grad_norm=sample.layer_grad_norm * factor,
            global_norm=sample.global_norm * factor,
            clipped_norm=sample.clipped_norm * factor,
        )
