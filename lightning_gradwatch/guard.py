"""Our mistakes are ours: an error inside a part disables that part, once, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from lightning_gradwatch.errors import ConfigurationError, GradWatchWarning

T = TypeVar("T")


class Guard:
    """Calls parts so that none of them can end the user's run."""

    def __init__(self) -> None:
        self._disabled: set[int | str] = set()

    def works(self, part: object) -> bool:
        """Whether the part has not failed so far."""
        return _key(part) not in self._disabled

    def call(
        self, part: object, method: Callable[..., T], *args: Any, default: T, **kwargs: Any
    ) -> T:
        """Return `method(*args)`, or `default` if the part fails now or has failed before."""
        if _key(part) in self._disabled:
            return default
        try:
            return method(*args, **kwargs)
        except ConfigurationError:
            raise
        except Exception as error:
            self.disable(part, error)
            return default

    def disable(self, part: object, error: Exception) -> None:
        """Switch a part off and say so once."""
        if _key(part) in self._disabled:
            return
        self._disabled.add(_key(part))
        name = part if isinstance(part, str) else type(part).__name__
        warnings.warn(
            f"GradWatch: {name} failed with {type(error).__name__}: {error}. It is switched off "
            "for the rest of this fit; training and everything else go on. If the part is your "
            "own, mend it; if it is ours, please report it with this message.",
            GradWatchWarning,
            stacklevel=3,
        )

    def __getstate__(self) -> dict[str, object]:
        """A copy starts with every part at work: other objects have other identities."""
        return {"_disabled": set()}

    def reset(self) -> None:
        """Give every part another chance: a new fit begins."""
        self._disabled.clear()


def _key(part: object) -> int | str:
    """Parts without an object of their own are known by name."""
    return part if isinstance(part, str) else id(part)
