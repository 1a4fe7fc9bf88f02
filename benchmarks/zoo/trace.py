"""What is kept of one watched run: all that any detector, ours or a rival's, may look at."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_gradwatch.facts import ModelFacts
from lightning_gradwatch.sample import Sample


@dataclass(frozen=True)
class RawWeight:
    """One parameter at one step, as a rival's hook would see it.

    Attributes:
        name: Dotted name.
        is_matrix: Two or more dimensions.
        grad_norm: L2 norm of the gradient; NaN without one.
        grad_mean_abs: Mean absolute gradient.
        grad_zero: Share of gradient entries that are exactly 0.
        grad_finite: No NaN and no Inf in the gradient.
        update_ratio: Mean absolute weight change over mean absolute weight; NaN if unknown.
    """

    name: str
    is_matrix: bool
    grad_norm: float
    grad_mean_abs: float
    grad_zero: float
    grad_finite: bool
    update_ratio: float


@dataclass(frozen=True)
class RawActivation:
    """One activation module at one step, as a rival's forward hook would see it.

    Attributes:
        name: Dotted name.
        kind: Class: ReLU, Tanh, Sigmoid, ...
        not_positive: Share of outputs <= 0.
        units_inactive: Share of units whose output is <= 0 for all samples of the batch.
        input_min: Smallest input.
        input_max: Largest input.
        input_beyond_5: Share of inputs outside [-5, 5].
        finite: No NaN and no Inf in the output.
    """

    name: str
    kind: str
    not_positive: float
    units_inactive: float
    input_min: float
    input_max: float
    input_beyond_5: float
    finite: bool


@dataclass(frozen=True)
class RawStep:
    """One step as the rivals' hooks see it.

    Attributes:
        step: Optimizer step.
        loss: Loss of the batch.
        accuracy: Accuracy on the batch for classification; NaN for anything else.
        weights: Parameters in order of definition.
        activations: Activation modules in order of execution.
    """

    step: int
    loss: float
    accuracy: float
    weights: tuple[RawWeight, ...]
    activations: tuple[RawActivation, ...]


@dataclass(frozen=True)
class Trace:
    """A watched run.

    Attributes:
        case: Name of the case.
        seed: Its seed.
        steps: Planned optimizer steps.
        epoch_steps: Steps of an epoch.
        samples: Exactly what GradWatch handed to its detectors, in order.
        facts: What its diagnosis knew of the model.
        raw: What the rivals' hooks saw, each step of the first ten and every fifth after that.
    """

    case: str
    seed: int
    steps: int
    epoch_steps: int
    samples: tuple[Sample, ...]
    facts: ModelFacts
    raw: tuple[RawStep, ...]


@dataclass(frozen=True)
class Verdict:
    """What was measured of one case: the truth that detectors are scored against.

    Attributes:
        case: Name of the case.
        family: Kind of task and network, for the table.
        tricky: Healthy, and of a kind that careless rules call sick.
        progress: p of the run: 1 is as good as a competent model, 0 as the best constant.
        required: Codes that must be reported; empty for a run that succeeds.
        tolerated: Codes that may be reported besides.
        onset: Step at which the first required symptom was there; 0 without one.
        remedies: Factor changed to progress reached with it.
    """

    case: str
    family: str
    tricky: bool
    progress: float
    required: tuple[str, ...]
    tolerated: tuple[str, ...]
    onset: int
    remedies: dict[str, float]

    @property
    def healthy(self) -> bool:
        """Whether nothing of severity WARNING or higher may be reported."""
        return not self.required
