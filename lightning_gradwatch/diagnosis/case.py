"""A finding together with what is known of the model: what causes and remedies are chosen by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

from lightning_gradwatch.facts import ModelFacts
from lightning_gradwatch.finding import Finding

_T = TypeVar("_T")
_D = TypeVar("_D")

#: Activations whose derivative goes to zero on both sides.
_SATURATING = frozenset({"Sigmoid", "Tanh", "Hardsigmoid", "Hardtanh", "Softsign", "LogSigmoid"})
#: Activations that are exactly zero on one side.
_RECTIFYING = frozenset({"ReLU", "ReLU6"})
#: Optimizers that give every parameter steps of its own size.
_ADAPTIVE = frozenset(
    {"Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "SparseAdam"}
)

#: Steps within which one thing is taken to have led to another.
_NEAR = 10


@dataclass(frozen=True)
class Case:
    """One finding, the facts, and what came before it in the run.

    Attributes:
        finding: The finding to explain.
        facts: What is known of the model and its optimizers.
        earlier: The finding with the earliest onset of every code so far, merged.
    """

    finding: Finding
    facts: ModelFacts
    earlier: Mapping[str, Finding] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether the evidence holds a number of that name."""
        return name in self.finding.evidence

    def value(self, name: str) -> float:
        """Return a number of the evidence; 0 if it has none of that name."""
        return float(self.finding.evidence.get(name, 0.0))

    def follows(self, code: str) -> bool:
        """Whether that code was found before, or at the same step."""
        cause = self.earlier.get(code)
        return cause is not None and cause.first_step <= self.finding.first_step

    def ends(self, code: str) -> bool:
        """Whether that code was still being found when this began: this is how it ended."""
        cause = self.earlier.get(code)
        return (
            cause is not None
            and self.follows(code)
            and cause.last_step >= self.finding.first_step - _NEAR
        )

    @property
    def saturating(self) -> tuple[str, ...]:
        """Kinds of saturating activations in the model."""
        return tuple(kind for kind in self.facts.activations if kind in _SATURATING)

    @property
    def rectifying(self) -> bool:
        """Whether the model has ReLU modules and no saturating ones."""
        return not self.saturating and any(k in _RECTIFYING for k in self.facts.activations)

    @property
    def normalised(self) -> bool:
        """Whether the model has normalisation layers."""
        return bool(self.facts.normalisations)

    @property
    def adaptive(self) -> bool:
        """Whether the optimizer concerned is an adaptive one."""
        return self._of(self.facts.optimizers, "") in _ADAPTIVE

    @property
    def gain(self) -> float | None:
        """Median std(weight) x sqrt(fan_in) of the initial weights of the layers concerned."""
        gains = self.facts.init_gain
        chosen = [gains[name] for name in self.finding.layers if name in gains]
        chosen = chosen or list(gains.values())
        return median(chosen) if chosen else None

    @property
    def small_weights(self) -> bool:
        """Whether the initial weights shrink every signal."""
        return self.gain is not None and self.gain < 0.4

    @property
    def large_weights(self) -> bool:
        """Whether the initial weights blow every signal up."""
        return self.gain is not None and self.gain > 2.0

    @property
    def zero_weights(self) -> bool:
        """Whether a layer concerned began with a matrix of zeros."""
        gains = self.facts.init_gain
        return any(gains.get(name) == 0.0 for name in self.finding.layers)

    @property
    def unscaled_inputs(self) -> bool:
        """Whether the data that enters the model is far from standardised."""
        return self.facts.input_rms > 3.0

    @property
    def unscaled_targets(self) -> bool:
        """Whether the targets are far larger than what the model puts out at first."""
        return self.facts.target_size > 30.0

    @property
    def initial(self) -> bool:
        """Whether the gradient exploded before anything was learnt."""
        return self.has("early_elasticity") or self.has("forward_growth")

    @property
    def born_too_large(self) -> bool:
        """Whether the very first forward pass outgrew what a float can hold."""
        huge = min(self.value("largest_input"), self.value("out_of_range")) > 1e6
        return huge and self.value("step") == 0

    @property
    def overgrown(self) -> bool:
        """Whether training has made the weights many times larger."""
        return self.value("weights_left") > 3.0

    @property
    def collapsed(self) -> bool:
        """Whether weight decay has eaten the weights up."""
        return 0.0 < self.value("weights_left") < 0.1 and any(self.facts.weight_decays)

    @property
    def decayed(self) -> bool:
        """Whether a schedule has taken the learning rate away."""
        return self.has("peak_lr") and self.value("lr_now") < 0.1 * self.value("peak_lr")

    @property
    def warming(self) -> bool:
        """Whether the learning rate is still on its way up from a small part of itself."""
        return self.has("first_lr") and self.value("lr_now") > 2 * self.value("first_lr")

    @property
    def shallow(self) -> bool:
        """Whether the model has at most two layers with weight matrices."""
        return len(self.facts.init_gain) <= 2

    @property
    def recurrent(self) -> str:
        """Kind of the recurrent module concerned, or of the first one; "" without any."""
        kinds = self.facts.recurrent
        return next((kinds[n] for n in self.finding.layers if n in kinds), "") or next(
            iter(kinds.values()), ""
        )

    @property
    def too_long(self) -> float:
        """By what to divide the learning rate, so that a step promises a tenth of the loss.

        At least ten. Of steps a hundred times too long and more it is by their length: those were
        not the first ones. Where the weights themselves are too large the step says nothing.
        """
        explosion = self.earlier.get("exploding", self.finding)
        length = float(explosion.evidence.get("step_length", 0.0))
        if self.large_weights:
            return 10.0
        return max(10.0, min(10 * length, 100.0), min(length, 1e6))

    def _of(self, by_optimizer: Sequence[_T], unknown: _D) -> _T | _D:
        """Return what belongs to the optimizer of the finding."""
        index = int(self.value("optimizer"))
        return by_optimizer[index] if index < len(by_optimizer) else unknown

    def _lower_lr(self, rate: float | None) -> str:
        """A lower learning rate in one digit; a usual one where it was out of all bounds."""
        if rate is None:
            return "lr / 10"
        return f"{1e-3 if self.adaptive and rate > 1 else rate / self.too_long:.1g}"

    def _higher_lr(self) -> str:
        """A learning rate whose steps would be long enough, in one digit."""
        now, factor = self.value("lr_now"), self.value("too_short")
        if not (now > 0 and factor > 1):
            return "10 * lr"
        wanted = now * factor
        return f"{min(wanted, 1e-2) if self.adaptive else wanted:.1g}"

    def words(self) -> dict[str, object]:
        """Return what a sentence may name: the evidence, and the facts in words."""
        rate = self._of(self.facts.learning_rates, None)
        layers = self.finding.layers
        explosion = self.earlier.get("exploding", self.finding)
        recurrent = [n for n in self.finding.layers if n in self.facts.recurrent]
        return {
            **self.finding.evidence,
            "activation": " and ".join(self.saturating) or "the activation",
            "gain": 0.0 if self.gain is None else self.gain,
            "recurrent": self.recurrent,
            "recurrent_layer": next(iter(recurrent or self.facts.recurrent), "the layer"),
            "optimizer": self._of(self.facts.optimizers, "the optimizer"),
            "lr": "" if rate is None else f" (lr={rate:g} at the start)",
            "lower_lr": self._lower_lr(rate),
            "first_layer": layers[0] if layers else "the first layer",
            "last_layer": layers[-1] if layers else "the last layer",
            "higher_lr": self._higher_lr(),
            "input_rms": self.facts.input_rms,
            "target_size": self.facts.target_size,
            "weight_decay": max(self.facts.weight_decays, default=0.0),
            "clip": f"{5 * self.value('median'):.2g}" if self.value("median") > 0 else "1.0",
            "earlier_explosion": explosion.first_step,
            "explosion_remedy": next(iter(explosion.remedies), ""),
        }


@dataclass(frozen=True)
class Line:
    """A sentence, and when it applies.

    Attributes:
        text: The sentence; `{name}` stands for one of `Case.words`.
        when: Whether it applies to a case.
    """

    text: str
    when: Callable[[Case], bool] = lambda case: True

    def fill(self, case: Case) -> str:
        """Return the sentence with its numbers and names."""
        return self.text.format_map(case.words())
