"""How much host memory is free."""

from __future__ import annotations

from pathlib import Path

#: Limit and use of a container's memory, in the two versions of control groups.
_CONTAINERS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def available_memory() -> int | None:
    """Return bytes that can be had without swapping, within a container's limit; None: unknown.

    Example:
        >>> free = available_memory()
        >>> free is None or free > 0
        True
    """
    room = [_number(limit) - _number(used) for limit, used in _CONTAINERS if _number(limit)]
    for line in _text("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            room.append(1024 * int(value.split()[0]))
    return max(min(room), 0) if room else None


def _number(path: str) -> int:
    """Return the number in a file, 0 if there is none (a group without a limit says `max`)."""
    text = _text(path).strip()
    return int(text) if text.isdigit() else 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
