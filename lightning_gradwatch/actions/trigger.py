"""Which finding sets an action off, and how the action says so."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.finding import Finding


class Trigger:
    """Waits for findings of given codes.

    Under several processes the engine has already agreed on the codes found on any of them, so
    that every rank comes to the same decision here.

    Args:
        codes: Finding codes, checked.
    """

    def __init__(self, codes: Sequence[str]) -> None:
        self.codes = tuple(codes)

    def __call__(self, findings: Sequence[Finding], training: Training) -> str | None:
        """Return why it is time to act, in words, or None.

        An overflow under a gradient scaler never sets anything off: the scaler skips that step and
        lowers its scale, which is how it is meant to work.
        """
        if training.sample.amp_overflow:
            return None
        matching = [f for f in findings if f.code in self.codes]
        found = max(matching, key=lambda f: f.severity, default=None)
        return None if found is None else in_words(found)


def in_words(finding: Finding) -> str:
    """Return what a record says of a finding."""
    if finding.summary:
        return f"{finding.code}: {finding.summary}"
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in finding.evidence.items())
    where = f" in {', '.join(finding.layers[:3])}" if finding.layers else ""
    return f"{finding.code}{where}" + (f" ({numbers})" if numbers else "")
