"""Values as strict JSON: NaN and Inf have no place in it, and parsers of others refuse them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np


def json_safe(value: Any) -> Any:
    """Return `value` with everything in it fit for `json.dumps(..., allow_nan=False)`.

    Non-finite numbers become `"NaN"`, `"Infinity"` and `"-Infinity"`, which `float()` reads back;
    what JSON does not know becomes its `repr`.

    Example:
        >>> json_safe({"norm": float("inf"), "steps": (1, 2), "where": {3}})
        {'norm': 'Infinity', 'steps': [1, 2], 'where': '{3}'}
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if math.isfinite(number):
            return number
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    if isinstance(value, (np.bool_, np.integer)):
        return value.item()
    if isinstance(value, np.ndarray):
        return json_safe(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(item) for item in value]
    return str(value) if isinstance(value, PurePath) else repr(value)
