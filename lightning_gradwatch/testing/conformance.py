"""The trials that every built-in detector passes, for yours as well."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from lightning_gradwatch.detectors.protocol import StatefulDetector
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.sample import Sample
from lightning_gradwatch.testing import runs
from lightning_gradwatch.testing.findings import check_finding
from lightning_gradwatch.testing.samples import Updates

#: Makes a fresh detector; a class that needs no arguments is one.
Factory = Callable[[], Updates]

#: Where a run is cut, as a share of its length.
_CUTS = (0.0, 0.004, 0.02, 0.2, 0.37, 0.51, 0.8)

#: What the loss is multiplied by. No unit of the loss is better than another.
_SCALES = (1e-6, 1e5)


def check_detector(factory: Factory, *, scale_free: bool = True) -> None:
    """Put a detector through everything that a long run may bring.

    It must bear any number and any layout, say well-formed findings only, be resumed from a
    checkpoint without a difference, and stay small. Each trial is a function in
    `DETECTOR_CHECKS`, for those who want one test for each.

    Args:
        factory: Called without arguments, makes a fresh detector: its class, or a function.
        scale_free: Whether it must say the same when the loss is multiplied by a constant, as
            every built-in detector does. False for one with fixed thresholds.

    Raises:
        AssertionError: It failed; the message says where, at which step, and what is expected.

    Example:
        >>> class Last:
        ...     def update(self, sample):
        ...         if sample.layer_grad_norm[-1] > 1e3:
        ...             yield Finding("my.last", 1, (), sample.step, sample.step)
        >>> check_detector(Last)
        Traceback (most recent call last):
            ...
        AssertionError: Last on a model without parameters, step 0: raised IndexError: index -1 is \
out of bounds for axis 0 with size 0
    """
    for check in DETECTOR_CHECKS:
        if scale_free or check is not check_scale_of_the_loss:
            check(factory)


def check_odd_runs(factory: Factory) -> None:
    """Nothing to look at, something missing, layouts that change: no error, sound findings."""
    for name, samples in runs.odd_runs():
        _watch(factory(), name, samples)


def check_bad_numbers(factory: Factory) -> None:
    """NaN, Inf, zeros, 1e-30, 1e30, one layer, no gradient, any loss: the same."""
    for name, samples in runs.bad_numbers():
        detector = factory()
        _watch(detector, name, samples)
        _state(detector)


def check_findings(factory: Factory) -> None:
    """Trained runs, healthy and sick: findings are well formed, samples left as they were."""
    for name in runs.RUNS:
        samples = runs.run(name)
        before = [sample.grad_norm.copy() for sample in samples]
        _watch(factory(), name, samples)
        for sample, norms in zip(samples, before, strict=True):
            if not np.array_equal(sample.grad_norm, norms, equal_nan=True):
                raise AssertionError(
                    f"{_who(factory())} on {name}, step {sample.step}: changed the sample"
                )


def check_resuming(factory: Factory) -> None:
    """A run resumed from a checkpoint is judged as an uninterrupted one."""
    for name in runs.RUNS:
        samples = runs.run(name)
        whole = _watch(factory(), name, samples)
        for cut in sorted({round(share * len(samples)) for share in _CUTS}):
            first, second = factory(), factory()
            before = _watch(first, name, samples[:cut])
            state = _state(first)
            if isinstance(second, StatefulDetector):
                second.load_state_dict(state)
            after = _watch(second, f"{name}, resumed", samples[cut:])
            _same(
                whole,
                before + after,
                f"{_who(first)} on {name}, resumed at step {cut}, says something else than without "
                "interruption: state_dict must hold all that it remembers",
            )


def check_reset(factory: Factory) -> None:
    """After `reset` it is as good as new, and no two detectors share what they remember."""
    for name in runs.RUNS:
        samples = runs.run(name)
        detector = factory()
        whole = _watch(detector, name, samples)
        _same(
            whole,
            _watch(factory(), name, samples),
            f"{_who(detector)} on {name}: a second, fresh one says something else than the first; "
            "do they share state, or is there chance in it?",
        )
        if isinstance(detector, StatefulDetector):
            detector.reset()
            _same(
                whole,
                _watch(detector, name, samples),
                f"{_who(detector)} on {name}: after reset() it says something else than a new one",
            )


def check_memory(factory: Factory) -> None:
    """After 20,000 samples it is about as large as after 2,000."""
    detector, seen, early = factory(), 0, 0
    tour = [s for name in ("an eventful run", "two optimizers") for s in runs.run(name)]
    while seen < 20_000:
        _watch(detector, "a run of 20,000 samples", runs.shifted(tour, seen), sound=False)
        seen += len(tour)
        if not early and seen >= 2_000:
            early = _size(detector)
    late = _size(detector)
    if late > 1.3 * early + 1_000:
        raise AssertionError(
            f"{_who(detector)} remembers {early:,} bytes after 2,000 samples and {late:,} after "
            "20,000: what it keeps must be bounded, as runs are not"
        )


def check_scale_of_the_loss(factory: Factory) -> None:
    """The loss multiplied by a constant, and with it every gradient: the same is found."""
    for name in runs.RUNS:
        samples = runs.run(name)
        plain = _told(_watch(factory(), name, samples))
        for scale in _SCALES:
            found = _told(_watch(factory(), name, runs.scaled(samples, scale)))
            for one, other in zip([*plain, None], [*found, None], strict=False):
                if one != other:
                    raise AssertionError(
                        f"{_who(factory())} on {name}: with the loss times {scale:g} it says "
                        f"{other or 'nothing'} where it said {one or 'nothing'}; judge by ratios, "
                        "or pass scale_free=False"
                    )


#: Every trial, to be called with a factory.
DETECTOR_CHECKS: tuple[Callable[[Factory], None], ...] = (
    check_odd_runs,
    check_bad_numbers,
    check_findings,
    check_reset,
    check_resuming,
    check_memory,
    check_scale_of_the_loss,
)


def _watch(
    detector: Updates, name: str, samples: Iterable[Sample], sound: bool = True
) -> list[Finding]:
    """Feed a run, and put every error down to the step at which it came."""
    said: list[Finding] = []
    known: set[str] = set()
    for sample in samples:
        where = f"{_who(detector)} on {name}, step {sample.step}"
        try:
            found = list(detector.update(sample))
        except Exception as error:
            raise AssertionError(f"{where}: raised {type(error).__name__}: {error}") from error
        if sound and found:
            try:
                for finding in found:
                    check_finding(finding, sample, known | _names(sample))
            except AssertionError as error:
                raise AssertionError(f"{where}: {found[0]!r}\n{error}") from None
        if sound:
            known |= _names(sample)
        said += found
    return said


def _names(sample: Sample) -> set[str]:
    names = set(sample.layout.layers)
    if sample.flow is not None:
        names.update(profile.module for profile in sample.flow.time_profiles)
        names.update(sample.flow.modules.names if sample.flow.modules is not None else ())
    return names


def _state(detector: Updates) -> Any:
    """Return the state as a checkpoint gives it back; None for a detector without one."""
    if not isinstance(detector, StatefulDetector):
        return None
    state = detector.state_dict()
    _check_plain(state, f"{_who(detector)}.state_dict()")
    return json.loads(json.dumps(state))


def _check_plain(value: Any, where: str) -> None:
    if type(value) is dict:
        for key, part in value.items():
            if type(key) is not str:
                raise AssertionError(f"{where} has the key {key!r}: only str survives JSON")
            _check_plain(part, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for i, part in enumerate(value):
            _check_plain(part, f"{where}[{i}]")
    elif type(value) not in (int, float, str, bool, type(None)):
        raise AssertionError(
            f"{where} is of type {type(value).__name__}: a checkpoint takes int, float, str, bool, "
            "None, list, tuple and dict"
        )


def _size(detector: Updates) -> int:
    """Return the size of all that a detector remembers, in bytes."""
    try:
        return len(pickle.dumps(vars(detector)))
    except Exception:  # slots, or something that cannot be pickled: only the state can be weighed
        return len(json.dumps(_state(detector)))


def _same(expected: Sequence[Finding], got: Sequence[Finding], complaint: str) -> None:
    if repr(expected) == repr(got):  # NaN in the evidence equals itself
        return
    for one, other in zip([*expected, None], [*got, None], strict=False):
        if repr(one) != repr(other):
            raise AssertionError(f"{complaint}\nexpected {one}\ngot      {other}")


def _told(findings: Sequence[Finding]) -> list[tuple[Any, ...]]:
    """What was said, without the numbers: they may carry the unit of the loss."""
    return [(f.first_step, f.code, f.severity.name, f.layers) for f in findings]


def _who(detector: Updates) -> str:
    return type(detector).__name__
