"""What to try: the lines that apply, best first, each with the code to change."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_gradwatch.diagnosis.case import Case, Line
from lightning_gradwatch.diagnosis.words import WORDS

#: So many remedies at most: who is given ten tries none.
_MOST = 4

REMEDIES: Mapping[str, tuple[Line, ...]] = {kind: words.REMEDIES for kind, words in WORDS.items()}


def remedies_for(case: Case, kind: str) -> tuple[str, ...]:
    """Return what to try against a kind of finding, best first; nothing for kinds not ours."""
    lines = [line for line in REMEDIES.get(kind, ()) if line.when(case)]
    return tuple(dict.fromkeys(line.fill(case) for line in lines))[:_MOST]
