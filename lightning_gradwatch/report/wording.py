"""How numbers, places and steps are put into words, the same in every output."""

from __future__ import annotations

import math
from collections.abc import Sequence

_ASCII = str.maketrans(
    {
        "×": "x", "‖": "|", "→": "->", "←": "<-", "·": "-", "…": "...", "–": "-", "—": "-",
        "≥": ">=", "≤": "<=", "≈": "~", "−": "-", "●": "*", "✓": "+", "²": "^2", "√": "sqrt ",
        "‘": "'", "’": "'", "“": '"', "”": '"', "∞": "inf", "µ": "u", "∂": "d", "‑": "-",
    }
)  # fmt: skip


def ascii_only(text: str) -> str:
    """Return `text` in ASCII: known signs by their likeness, anything else as `?`.

    Example:
        >>> ascii_only("‖g‖ grew ×3 → Inf")
        '|g| grew x3 -> Inf'
    """
    return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")


def number(value: float) -> str:
    """Return `value` with three significant digits, in at most eight characters.

    Example:
        >>> [number(v) for v in (0.0, 0.31712, 393.2, 2642.0, 5.14e-5, float("inf"))]
        ['0', '0.317', '393', '2642', '5.1e-05', 'inf']
    """
    size = abs(value)
    if not math.isfinite(value) or value == 0.0:
        return f"{value:g}".replace("-0", "0")
    if 999.5 <= size < 9999.5:
        return f"{value:.0f}"
    return f"{value:.3g}" if 0.001 <= size < 999.5 else f"{value:.1e}"


def aligned(value: float) -> str:
    """Return the same with trailing zeros, so that digits stand under each other.

    Example:
        >>> [aligned(v) for v in (0.0, 0.31712, 1.5, 10.0, 393.2, 5e-5, float("nan"))]
        ['0', '0.317', '1.50', '10.0', '393', '5.0e-05', 'nan']
    """
    plain = number(value)
    if not 0.001 <= abs(value) < 999.5:
        return plain
    return f"{value:#.3g}".rstrip(".")


def count(value: int, noun: str = "") -> str:
    """Return a count with thousands separators, and its noun in the plural if need be.

    Example:
        >>> count(1, "step"), count(1234, "step"), count(10)
        ('1 step', '1,234 steps', '10')
    """
    return f"{value:,}" + (f" {noun}" + "s" * (value != 1) if noun else "")


def size(elements: int) -> str:
    """Return a number of weights as people write model sizes.

    Example:
        >>> [size(n) for n in (0, 999, 1_000, 12_345, 999_999, 7_000_000_000)]
        ['0', '999', '1.0 K', '12.3 K', '1.0 M', '7.0 B']
    """
    value, units = float(elements), ["", " K", " M", " B", " T"]
    while value >= 999.95 and len(units) > 1:
        value, units = value / 1000.0, units[1:]
    return f"{value:.1f}{units[0]}" if units[0] else f"{elements}"


def shorten(name: str, width: int) -> str:
    """Shorten a dotted name to `width` characters; its end, which tells layers apart, stays.

    Example:
        >>> shorten("backbone.encoder.layers.11", 16)
        'back…r.layers.11'
    """
    if len(name) <= width:
        return name
    head = max(1, width // 4)
    return f"{name[:head]}…{name[len(name) - max(1, width - head - 1) :]}"


def places(layers: Sequence[str], shown: int = 3) -> str:
    """Say which layers: the first few by name, the others by number.

    Example:
        >>> places(["a", "b", "c", "d", "e"]), places([])
        ('a, b, c and 2 more', 'the whole model')
    """
    if not layers:
        return "the whole model"
    names = ", ".join(shorten(name, 48) for name in layers[:shown])
    return names + (f" and {len(layers) - shown:,} more" if len(layers) > shown else "")


def when(first: int, last: int, times: int) -> str:
    """Say at which steps something was seen.

    Example:
        >>> when(7, 7, 1), when(0, 1999, 132)
        ('step 7', 'steps 0 to 1,999, 132 times')
    """
    if first == last:
        return f"step {first:,}"
    return f"steps {first:,} to {last:,}" + (f", {times:,} times" if times > 1 else "")
