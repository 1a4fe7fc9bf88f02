"""Numbers and names as they stand in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightning_gradwatch.sample import Sample


def amount(value: float) -> str:
    """Return a number in the fewest digits that still say it.

    Example:
        >>> amount(1.2345e-11), amount(0.25), amount(31.4), amount(25_300.0), amount(3.2e9)
        ('1.2e-11', '0.25', '31', '25,300', '3.2e+09')
    """
    return f"{value:,.0f}" if 99.5 <= value < 1e6 else f"{value:.2g}"


def names(items: Sequence[str], most: int = 3, thing: str = "layer") -> str:
    """Return the first few names, and how many more there are.

    Example:
        >>> names(["a"]), names(["a", "b"]), names(["a", "b", "c", "d", "e"])
        ('a', 'a and b', 'a, b, c and 2 more layers')
    """
    if len(items) == 1:
        return items[0]
    if len(items) <= most:
        return f"{', '.join(items[:-1])} and {items[-1]}" if items else f"no {thing}"
    more = len(items) - most
    return f"{', '.join(items[:most])} and {more} more {thing}{'s' if more > 1 else ''}"


def heaviest(sample: Sample) -> tuple[str, ...]:
    """Return the layers that carry a tenth or more of the squared gradient norm, in order."""
    norms = np.where(sample.layer_has_grad, sample.layer_grad_norm, 0.0)
    top = float(norms.max(initial=0.0))
    if not 0.0 < top < np.inf:
        return ()
    squares = np.square(norms / top)
    return tuple(sample.layout.layers[i] for i in np.flatnonzero(squares >= 0.1 * squares.sum()))
