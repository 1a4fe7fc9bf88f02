"""When to look for the culprit: at the first `nonfinite` findings of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning_gradwatch.culprit.find import Replay, find
from lightning_gradwatch.culprit.tell import name_culprit
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.history import History

#: Replays in one run, unless one of them found the culprit.
ATTEMPTS = 3


class Seeker:
    """Names the culprit of a run's first `nonfinite` findings."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """A new run begins."""
        self._left = ATTEMPTS
        self._unsolved = -1  # the latest step whose replay gave finite numbers only

    @property
    def wants_batches(self) -> bool:
        """Whether there may be another replay."""
        return self._left > 0

    def seek(
        self,
        findings: Sequence[Finding],
        replay: Callable[[], Replay],
        batch_idx: int,
        history: History,
    ) -> list[Finding]:
        """Return the findings, the `nonfinite` ones with what a replay says of them."""
        if not self._left or not any(f.code == "nonfinite" for f in findings):
            return list(findings)
        self._left -= 1
        answer = find(replay())
        if answer.culprit is not None or not answer.replayed:
            self._left = 0
        step = next(f.first_step for f in findings if f.code == "nonfinite")
        culprit, unsolved = answer.culprit, self._unsolved
        if culprit is None and answer.replayed:
            self._unsolved = step
        elif culprit is not None and culprit.kind == "weight" and unsolved == step - 1:
            return list(findings)  # broken by that step: no news of who did it
        finite = history.steps[history.loss == history.loss]
        last = int(finite[finite < step].max()) if (finite < step).any() else None
        return [
            name_culprit(f, answer, batch_idx, last) if f.code == "nonfinite" else f
            for f in findings
        ]
