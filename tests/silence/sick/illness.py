"""What a sick case is: a model that fails, what must be said of it, and what heals it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch

from lightning_gradwatch import GradWatch, Severity
from tests.silence.case import Outcome, Trial, run

#: The remedy that names a learning rate, which the healed twin is trained with.
LOWER_LR = r"Lower the learning rate: lr=(?P<lr>[\d.e-]+)\."
ADAM = r"Use Adam, .*: torch\.optim\.Adam\(model\.parameters\(\), lr=(?P<adam>1e-3)\)\."
NORMALISE = (
    r"Normalise between layers: nn\.BatchNorm1d\(width\) .* after each nn\.Linear, "
    r"nn\.BatchNorm2d\(channels\) after each convolution\."
)


@dataclass(frozen=True)
class Illness:
    """A model that fails, and all that must be said of it.

    Attributes:
        make: Makes the trial; its keyword arguments are the changes that may heal it.
        code: Of the finding that must come first.
        layers: Layers that the finding must name.
        spared: Layers that it must not name.
        summary: Regular expression that its summary must match.
        cause: Regular expression that its cause must match.
        remedy: Regular expression that its first remedy must match from end to end. Named groups
            are numbers that the remedy gives; they are arguments of `make` for the healed twin.
        change: Further arguments of `make` for the healed twin.
        also: Other codes that are true of this model too, if they are told later.
        wrong: What is known to be told wrongly, by what shows it: "code", "words", "remedy" or
            "after" (the healed twin).
        cure: Arguments of `make` for the healed twin where the first remedy is told wrongly.
    """

    make: Callable[..., Trial]
    code: str
    summary: str
    cause: str
    remedy: str
    layers: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()
    change: Mapping[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    wrong: Mapping[str, str] = field(default_factory=dict)
    cure: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.make.__name__


def sick(**told: Any) -> Callable[[Callable[..., Trial]], Illness]:
    """Decorate a function that makes a sick trial with what must be said of it."""
    return lambda make: Illness(make, **told)


class Alarms(pl.Callback):
    """Notes after which step each code was first announced."""

    def __init__(self) -> None:
        self.first: dict[str, int] = {}
        self.steps = 0

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        [watch] = [c for c in trainer.callbacks if isinstance(c, GradWatch)]
        for finding in watch.findings:
            if finding.severity >= Severity.WARNING:
                self.first.setdefault(finding.code, self.steps)
        self.steps += 1


def fall_ill(illness: Illness) -> tuple[Outcome, Alarms]:
    """Train the sick model, and note when it was told so."""
    alarms = Alarms()

    def make() -> Trial:
        trial = illness.make()
        trial.trainer = {**trial.trainer, "callbacks": [alarms]}
        return trial

    return run(make), alarms


def changes(illness: Illness, remedy: str) -> dict[str, Any]:
    """Return what the remedy asks to be changed, as arguments of the case."""
    match = re.fullmatch(illness.remedy, remedy)
    assert match, f"this is no remedy that is known to heal: {remedy}"
    given = {name: float(number) for name, number in match.groupdict().items()}
    assert illness.change or given, "nothing would be changed"
    return {**illness.change, **given}


def heal(illness: Illness, change: Mapping[str, Any]) -> Outcome:
    """Train the twin: the same model with one change."""
    return run(lambda: illness.make(**change))


def sgd(lr: float, momentum: float = 0.0, **more: Any) -> Any:
    return lambda task: torch.optim.SGD(task.parameters(), lr, momentum, **more)
