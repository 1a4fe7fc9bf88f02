"""The runs that a detector is put through: trained ones, and ones made of the worst numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.layers import Layout
from lightning_gradwatch.sample import Flow, ModuleFlow, Sample, Update
from lightning_gradwatch.testing.flows import make_flow
from lightning_gradwatch.testing.rehearsal import is_measured, rehearse
from lightning_gradwatch.testing.samples import deliver, make_sample

#: Numbers that gradients and losses are set to, by what they stand for.
NORMS: dict[str, list[float | None]] = {
    "NaN": [math.nan] * 4,
    "Inf": [math.inf] * 4,
    "NaN, Inf, 0 and 1": [1.0, math.nan, math.inf, 0.0],
    "zeros": [0.0] * 4,
    "1e-30": [1e-30] * 4,
    "1e30": [1e30] * 4,
    "both ends of float64": [1e-300, 1e300, 1e-300, 1e300],
    "no gradient at all": [None] * 4,
    "one layer": [1.0],
}
LOSSES = (1.0, 0.0, -1.0, math.nan, math.inf, 1e30, 1e-30)

_EMPTY = Layout((), (), (), (), (), ())


def eventful(steps: int = 260, seed: int = 0) -> list[Sample]:
    """Return a run with everything in it: fading layers and time steps, spikes, NaN, overflows.

    Two optimizers take turns, windows of accumulation are cut short, one parameter never has a
    gradient, and at the end everything explodes.
    """
    rng = np.random.default_rng(seed)
    samples = []
    for t in range(steps):
        grads = list(np.exp(0.3 * rng.normal(size=6)) * np.logspace(-9, 0, 6))
        if t in (70, 130):
            grads = [g * 1e4 for g in grads]
        if t in (90, 91):
            grads[2] = math.nan
        if t >= 200:
            grads = [g * 3.0 ** (t - 200) for g in grads]
        served = [g if t % 3 else None for g in grads[:1]] + grads[1:]
        update: dict[str, Any] = {
            "weight_norm": [5.0] * 7,
            "update_norm": [0.1] * 7,
            "descent": [0.0 if g is None else 0.1 * g for g in served] + [math.nan],
        }
        profile = {"layer3": np.logspace(-12, 0, 40).tolist()}
        samples.append(
            make_sample(
                t,
                [*served, None],
                loss=(2.0 if t < 200 else 2.0 * 3.0 ** (t - 200)) * rng.uniform(0.9, 1.1),
                optimizer=int(t % 7 == 6),
                amp_overflow=t in (90, 150),
                accumulated=0.5 if t % 50 == 49 else 1.0,
                flow=make_flow(time_profiles=profile) if is_measured(t) else None,
                **(update if is_measured(t) else {}),
            )
        )
    return deliver(samples)


def _turns(first: Sequence[Sample], second: Sequence[Sample]) -> Iterator[Sample]:
    """Let two networks train in turns, each by an optimizer of its own, as a GAN does."""
    one, two = first[0].layout, second[0].layout
    names = tuple(f"{part}.{n}" for part, own in (("a", one), ("b", two)) for n in own.parameters)
    layers = tuple(f"{part}.{n}" for part, own in (("a", one), ("b", two)) for n in own.layers)
    shifted = tuple(i + len(one.layers) for i in two.layer_of)
    layout = Layout(
        names, layers, one.layer_of + shifted, one.numel + two.numel, one.ndim + two.ndim,
        one.kinds + two.kinds,
    )  # fmt: skip
    for pair in zip(first, second, strict=True):
        for index, sample in enumerate(pair):
            yield _widened(sample, index, layout)


def _widened(sample: Sample, index: int, layout: Layout) -> Sample:
    """Put a sample's columns where the joint layout has them; its flow is left out."""

    def wide(values: npt.NDArray[Any], width: int, missing: object) -> npt.NDArray[Any]:
        rest = np.full(width - len(values), missing, values.dtype)
        return np.concatenate([values, rest] if index == 0 else [rest, values])

    width, update = len(layout.parameters), sample.update
    if update is not None:
        columns: dict[str, Any] = {
            name: wide(getattr(update, name), width, math.nan)
            for name in ("weight_norm", "update_norm", "descent")
        }
        update = replace(update, optimizer=index, **columns)
    return replace(
        sample,
        layout=layout,
        optimizer=index,
        grad_norm=wide(sample.grad_norm, width, math.nan),
        has_grad=wide(sample.has_grad, width, False),
        layer_grad_norm=wide(sample.layer_grad_norm, len(layout.layers), math.nan),
        update=update,
        flow=None,
    )


#: Runs of plausible numbers, by name. Trained ones have flow and updates.
RUNS: dict[str, Callable[[], list[Sample]]] = {
    "a healthy run": lambda: rehearse("relu", steps=400),
    "a healthy run of tanh": lambda: rehearse("tanh", depth=3, steps=400, seed=1),
    "a run whose gradients vanish": lambda: rehearse("sigmoid", depth=8),
    "a run that explodes": lambda: rehearse("relu", weight_scale=2.5, lr=1.0, seed=2),
    "a run whose units are dead": lambda: rehearse("relu", bias=-4.0, steps=400),
    "a run whose units are saturated": lambda: rehearse("tanh", weight_scale=20.0, steps=400),
    "a run that stalls": lambda: rehearse("relu", lr=1e-9, steps=400),
    "a run that oscillates": lambda: rehearse("tanh", depth=3, lr=5.0, steps=400),
    "an eventful run": eventful,
    "two optimizers": lambda: list(
        _turns(rehearse("relu", depth=3), rehearse("sigmoid", depth=8, seed=1))
    ),
}


@lru_cache
def run(name: str) -> tuple[Sample, ...]:
    """Return one of `RUNS`, made once."""
    return tuple(RUNS[name]())


def bad_numbers() -> Iterator[tuple[str, list[Sample]]]:
    """Yield runs of the worst numbers, each with a name."""
    for name, norms in NORMS.items():
        for loss in LOSSES:
            flow = make_flow(
                [math.nan if n is None else n for n in norms],
                time_profiles={"layer0": [norms[0] or 0.0] * 20},
            )
            samples = [
                make_sample(t, norms, weight_norm=[1.0] * len(norms), loss=loss, flow=flow)
                for t in range(60)
            ]
            yield f"gradients {name}, loss {loss:g}", deliver(samples)


def odd_runs() -> Iterator[tuple[str, list[Sample]]]:
    """Yield runs of which something is missing, or changes on the way, each with a name."""
    empty = [make_sample(t, {}, layout=_EMPTY, loss=1.0) for t in range(60)]
    yield "a model without parameters", empty
    yield (
        "a model without parameters, and an update",
        deliver([make_sample(t, {}, layout=_EMPTY, loss=1.0, weight_norm=[]) for t in range(60)]),
    )
    for name in ("a run whose gradients vanish", "a run whose units are dead"):
        samples = run(name)
        yield f"{name}, no update ever", [replace(s, update=None) for s in samples]
        yield f"{name}, no loss ever", [replace(s, loss=math.nan) for s in samples]
        yield f"{name}, no flow ever", [replace(s, flow=None) for s in samples]
        yield f"{name}, flow without numbers", [replace(s, flow=_blank(s.flow)) for s in samples]
    yield "a layout that changes", _changing()
    one, other = rehearse("relu", depth=3, steps=120), rehearse("tanh", depth=6, steps=120)
    later = [replace(s, step=s.step + 120, update=_later(s.update, 120)) for s in other]
    yield "a model that is replaced by another", one + later


def _blank(flow: Flow | None) -> Flow | None:
    """Replace every number of a flow by NaN."""
    if flow is None or flow.modules is None:
        return flow
    kept = {"leaf", "functional", "calls", "units"}
    columns = {
        f.name: np.full_like(getattr(flow.modules, f.name), math.nan)
        for f in fields(ModuleFlow)
        if isinstance(getattr(flow.modules, f.name), np.ndarray) and f.name not in kept
    }
    unseen = replace(flow.modules, **columns, active=(None,) * len(flow.modules.names))
    return replace(flow, modules=unseen)


def _changing() -> list[Sample]:
    names = [f"layer{i}.weight" for i in range(5)]
    samples = []
    for t in range(120):
        present = names[:3] if t < 40 else names if t < 80 else names[::-1]
        flow = make_flow({name.partition(".")[0]: 1.0 for name in present})
        weights = [1.0] * len(present)
        samples.append(
            make_sample(t, dict.fromkeys(present, 1.0), weight_norm=weights, loss=1.0, flow=flow)
        )
    return deliver(samples)


def _later(update: Update | None, steps: int) -> Update | None:
    return None if update is None else replace(update, step=update.step + steps)


def shifted(samples: Sequence[Sample], steps: int) -> list[Sample]:
    """Return the samples as if they came so many steps later."""
    return [replace(s, step=s.step + steps, update=_later(s.update, steps)) for s in samples]


def scaled(samples: Sequence[Sample], scale: float) -> list[Sample]:
    """Return the samples of the same training, had the loss been multiplied by `scale`.

    Gradients and what a step promises grow with it; weights and their changes are the same, since
    whoever multiplies the loss divides the learning rate.
    """
    return [_scaled(sample, scale) for sample in samples]


def _scaled(sample: Sample, scale: float) -> Sample:
    update, flow = sample.update, sample.flow
    if update is not None:
        update = replace(update, descent=update.descent * scale)
    if flow is not None:
        profiles = tuple(
            replace(profile, grad_norm=profile.grad_norm * scale) for profile in flow.time_profiles
        )
        modules = flow.modules
        if modules is not None:
            modules = replace(modules, out_grad_norm=modules.out_grad_norm * scale)
        flow = Flow(profiles, modules)
    return replace(
        sample,
        grad_norm=sample.grad_norm * scale,
        layer_grad_norm=sample.layer_grad_norm * scale,
        global_norm=sample.global_norm * scale,
        clipped_norm=sample.clipped_norm * scale,
        loss=sample.loss * scale,
        lr=sample.lr / scale,
        update=update,
        flow=flow,
    )
