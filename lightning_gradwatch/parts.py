"""Checks the detectors, actions and reporters that a user hands over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def check_parts(
    detectors: Sequence[object] | None,
    actions: Sequence[object],
    reporters: Sequence[object] | None,
) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
    """Return the three as tuples, the defaults in place of None.

    Raises:
        TypeError: one of them is not a sequence, is a class, or lacks the method it is called by.
        ValueError: actions that cannot work together.
    """
    from lightning_gradwatch.detectors import default_detectors
    from lightning_gradwatch.reporters import default_reporters

    acting = _check("actions", actions, ("apply",))
    if acting:
        from lightning_gradwatch.actions.conflicts import check_together

        check_together(acting)
    return (
        _check("detectors", default_detectors() if detectors is None else detectors, ("update",)),
        acting,
        _check(
            "reporters",
            default_reporters() if reporters is None else reporters,
            ("start", "sample", "log", "finding", "action", "finish"),
        ),
    )


def _check(name: str, parts: Sequence[object], methods: tuple[str, ...]) -> tuple[Any, ...]:
    if isinstance(parts, str) or not isinstance(parts, Sequence):
        raise TypeError(f"{name} must be a list, got {parts!r}: write {name}=[...]")
    for part in parts:
        if isinstance(part, type):
            raise TypeError(f"{name}: {part.__name__} is a class, an instance is wanted: "
                            f"{part.__name__}(...)")  # fmt: skip
        if not any(callable(getattr(part, method, None)) for method in methods):
            raise TypeError(
                f"{name}: {part!r} has no method {' or '.join(methods)}, so it is none of {name}"
            )
    return tuple(parts)
