"""Which Lightning it is: the `Callback` to inherit from, of the namespace that the user imported.

`pytorch_lightning` and `lightning.pytorch` are two packages with unrelated classes. A Trainer takes
either, but LightningCLI checks types, and importing the one that is not in use costs seconds.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_NAMESPACES = ("lightning.pytorch", "pytorch_lightning")


def lightning() -> Any:
    """Return the Lightning package to build on: the one imported already, or the first there is.

    Raises:
        ImportError: neither namespace is installed.
    """
    callback_base()
    return sys.modules[next(name for name in _NAMESPACES if name in sys.modules)]


def callback_base() -> type[Any]:
    """Return a class that is a `Callback` in every Lightning namespace imported so far.

    Raises:
        ImportError: neither namespace is installed.
    """
    loaded = [name for name in _NAMESPACES if name in sys.modules]
    for name in loaded or reversed(_NAMESPACES):
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        if not loaded:
            loaded = [name]
            break
    bases = dict.fromkeys(sys.modules[name].Callback for name in loaded)
    if not bases:
        raise ImportError(
            "GradWatch needs Lightning: pip install pytorch-lightning (or lightning). Without "
            "Lightning use GradientWatcher in a loop of your own."
        )
    return type("Callback", tuple(bases), {}) if len(bases) > 1 else next(iter(bases))
