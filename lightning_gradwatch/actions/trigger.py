"""Which finding sets an action off, and how the action says so."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.finding import Finding


class Trigger:
    """Waits for findings of given codes, on any rank.

    Args:
        codes: Finding codes, checked.
    """

    def __init__(self, codes: Sequence[str]) -> None:
        self.codes = tuple(codes)

    def __call__(self, findings: Sequence[Finding], training: Training) -> str | None:
        """Return why it is time to act, in words, or None. A collective: call it every step.

        An overflow under a gradient scaler never sets anything off: the scaler skips that step and
        lowers its scale, which is how it is meant to work.
        """
        found = None
        if not training.sample.amp_overflow:
            matching = [f for f in findings if f.code in self.codes]
            found = max(matching, key=lambda f: f.severity, default=None)
        if not training.agree(found is not None):
            return None
        if found is None:
            return f"{' or '.join(self.codes)} on another rank"
        return _in_words(found)


def _in_words(finding: Finding) -> str:
    if finding.summary:
        return f"{finding.code}: {finding.summary}"
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in finding.evidence.items())
    where = f" in {', '.join(finding.layers[:3])}" if finding.layers else ""
    return f"{finding.code}{where}" + (f" ({numbers})" if numbers else "")
