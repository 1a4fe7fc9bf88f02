"""Warnings of our own, and the one way every wrong argument is refused.

Only a mistake in the user's configuration raises, as a `ValueError` or `TypeError` that shows the
value and the choices. Everything that goes wrong later is a `GradWatchWarning`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from lightning_gradwatch.finding import CODES


class ConfigurationError(ValueError):
    """A mistake in the arguments that only the model could show: the one error a hook raises."""


class GradWatchWarning(UserWarning):
    """Something of ours could not do its work; the user's run goes on."""


def check_number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> float:
    """Return `value` as a finite float inside the given bounds.

    Raises:
        TypeError: `value` is not a number.
        ValueError: `value` is NaN, infinite or out of bounds. The message shows value and range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    number = float(value)
    bounds = [
        (above, number > above if above is not None else True, "> {:g}"),
        (at_least, number >= at_least if at_least is not None else True, ">= {:g}"),
        (below, number < below if below is not None else True, "< {:g}"),
        (at_most, number <= at_most if at_most is not None else True, "<= {:g}"),
    ]
    wanted = " and ".join(text.format(limit) for limit, _, text in bounds if limit is not None)
    if not math.isfinite(number) or not all(holds for _, holds, _ in bounds):
        raise ValueError(f"{name} must be a finite number {wanted}".rstrip() + f", got {value!r}")
    return number


def check_int(name: str, value: object, *, at_least: int) -> int:
    """Return `value` as an int that is at least `at_least`.

    Raises:
        TypeError: `value` is not an int.
        ValueError: `value` is smaller than `at_least`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r} ({type(value).__name__})")
    if value < at_least:
        raise ValueError(f"{name} must be >= {at_least}, got {value!r}")
    return value


def check_codes(name: str, codes: Iterable[str] | str) -> tuple[str, ...]:
    """Return finding codes as a tuple, refusing unknown ones.

    A code of a detector of the user's own is written with a dot (`"my.code"`); codes without a dot
    are ours, so that a misspelt one is found at construction and not after a night of training.

    Raises:
        ValueError: empty, or a code that is neither built in nor dotted.
    """
    chosen = (codes,) if isinstance(codes, str) else tuple(codes)
    unknown = [c for c in chosen if not isinstance(c, str) or (c not in CODES and "." not in c)]
    if unknown or not chosen:
        what = f"unknown finding code {unknown[0]!r}" if unknown else "no finding code given"
        raise ValueError(
            f"{name}={codes!r}: {what}. Choose from {', '.join(CODES)}; a detector of your own "
            "uses a code with a dot, like 'my.code'."
        )
    return chosen
