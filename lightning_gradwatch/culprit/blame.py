"""Walks from a non-finite result back to the operation or the source where it began.

NaN is followed to NaN, and where it began, Inf to Inf. An Inf that was put there on purpose, as
masks of attention do, is not to blame for what a later operation makes of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from lightning_gradwatch.culprit.listen import Flags, Record

#: Operations that write the number they are given.
_DELIBERATE = frozenset(
    {
        "fill_", "fill", "full", "full_like", "masked_fill", "masked_fill_", "scalar_tensor",
        "where", "index_put", "index_put_", "lift_fresh", "lift_fresh_copy", "new_full",
        "masked_scatter", "masked_scatter_", "scatter", "scatter_", "_to_copy", "triu", "tril",
        "clone", "copy_", "zero_", "detach", "constant_pad_nd",
    }
)  # fmt: skip


def origin(results: Iterable[Record]) -> Record | None:
    """Return where the first of several non-finite results began; None without any."""
    found = [_walk(record, record.flags) for record in results]
    # Sources are always earlier than operations; they count only for what came from them.
    return min(found, key=lambda record: record.index, default=None)


def _walk(record: Record, flags: Flags) -> Record:
    while True:
        if flags.nan:
            before = _earliest(record, nan=True)
            if before is None:  # NaN began here, of finite numbers or of Inf
                infinite = _earliest(record, nan=False)
                if infinite is None:
                    return record
                start = _walk(*infinite)
                return record if _is_mask(start) else start
        else:
            before = _earliest(record, nan=False)
            if before is None:
                return record
            start = _walk(*before)
            return record if _is_mask(start) and not _only_passes(record) else start
        record, flags = before


#: What adds a mask to scores, alone or at the end of a product.
_PASSING = frozenset({"add", "sub", "mul", "div", "baddbmm", "addbmm", "addmm"})


def _earliest(record: Record, nan: bool) -> tuple[Record, Flags] | None:
    read = [(r, held) for r, held in record.reads if held.nan == nan]
    return min(read, key=lambda pair: pair[0].index, default=None)


def _is_mask(record: Record) -> bool:
    """Whether something holds -Inf or Inf because someone wanted it to."""
    if record.flags.nan:
        return False
    if record.source:
        return record.flags.below and not record.flags.above
    return record.operation in _DELIBERATE and not record.facts.get("largest_input", 0.0) > 6e4


def _only_passes(record: Record) -> bool:
    """Whether -Inf at this place is still the mask itself, added to scores or copied."""
    return record.operation in _DELIBERATE or (
        record.operation.rstrip("_") in _PASSING and not record.flags.nan
    )
