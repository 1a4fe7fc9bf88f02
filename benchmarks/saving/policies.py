"""What is done to keep a run alive: fixed settings, the tools of today, and our actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.zoo.config import Config
from lightning_gradwatch import GradWatch, actions


@dataclass(frozen=True)
class Policy:
    """One way to train.

    Attributes:
        name: For the table.
        lr: Factor on the learning rate, from the start.
        clip: Trainer's gradient_clip_val; 0 leaves what the run has.
        skip: Leave steps out whose gradient is not finite, by a callback of our own making that
            does nothing else.
        anomaly: Trainer's detect_anomaly.
        actions: Names in `lightning_gradwatch.actions`, with their arguments; `rescue` is a list
            of them.
    """

    name: str
    lr: float = 1.0
    clip: float = 0.0
    skip: bool = False
    anomaly: bool = False
    actions: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()

    def config(self, config: Config) -> Config:
        """Return the run with this policy's fixed settings."""
        return replace(config, lr=config.lr * self.lr, clip=self.clip or config.clip)

    def watcher(self) -> GradWatch | None:
        """Return a new GradWatch with this policy's actions; None for a policy without."""
        if not self.actions:
            return None
        made: list[Any] = []
        for name, arguments in self.actions:
            one = getattr(actions, name)(**dict(arguments))
            made += one if isinstance(one, Sequence) else [one]
        return GradWatch(actions=made, record=False, reporters=[])


def _acting(name: str, *calls: tuple[str, dict[str, Any]]) -> Policy:
    return Policy(name, actions=tuple((kind, tuple(kwargs.items())) for kind, kwargs in calls))


NONE = Policy("none")
#: From the start: what a run could have been saved by, had one known.
FIXED = (
    Policy("lr / 10", lr=0.1),
    Policy("lr / 100", lr=0.01),
    Policy("clip 1", clip=1.0),
    Policy("clip 0.1", clip=0.1),
    Policy("skip", skip=True),
)
#: What is compared: the same settings for every run.
COMPARED = (
    NONE,
    Policy("Trainer(gradient_clip_val=1.0)", clip=1.0),
    Policy("Trainer(detect_anomaly=True)", anomaly=True),
    _acting("ZClip()", ("ZClip", {})),
    _acting("ZClip(max_norm=1.0), as published", ("ZClip", {"max_norm": 1.0})),
    _acting("AutoClip(10)", ("AutoClip", {"percentile": 10})),
    _acting("AdaptiveClip(0.01)", ("AdaptiveClip", {"clip_factor": 0.01})),
    _acting("DecayLR()", ("DecayLR", {})),
    _acting("SkipStep()", ("SkipStep", {})),
    _acting("SkipStep() + ClipGradNorm(1.0)", ("SkipStep", {}),
            ("ClipGradNorm", {"max_norm": 1.0})),
    _acting("Rollback()", ("Rollback", {})),
    _acting("rescue()", ("rescue", {})),
)  # fmt: skip
RESCUE = COMPARED[-1]

#: Those whose every action is there.
AVAILABLE = tuple(p for p in COMPARED if all(hasattr(actions, name) for name, _ in p.actions))
POLICIES = {policy.name: policy for policy in (*FIXED, *COMPARED)}
