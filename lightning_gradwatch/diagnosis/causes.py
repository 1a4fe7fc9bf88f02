"""The likely cause of a finding: the first line that applies."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_gradwatch.diagnosis.case import Case, Line
from lightning_gradwatch.diagnosis.words import WORDS

CAUSES: Mapping[str, tuple[Line, ...]] = {kind: words.CAUSES for kind, words in WORDS.items()}


def cause_of(case: Case, kind: str) -> str:
    """Return the likely cause of a kind of finding; "" for kinds that are not ours."""
    return next((line.fill(case) for line in CAUSES.get(kind, ()) if line.when(case)), "")
