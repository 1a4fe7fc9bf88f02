"""What is known of a model and its optimizers when watching begins: plain values for the diagnosis.

Remedies are chosen by these facts: it makes no sense to advise ReLU to a network that has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModelFacts:
    """Facts about the model, its initial weights and its optimizers.

    Attributes:
        activations: Class name of each activation module found, to the names of those modules, in
            definition order. Functional activations (`F.relu`) do not appear.
        normalisations: Names of BatchNorm, LayerNorm, GroupNorm and similar modules.
        recurrent: Name of each recurrent module to its kind: `"RNN(tanh)"`, `"RNN(relu)"`,
            `"LSTM"`, `"GRU"`, cells included.
        init_gain: Layer name to std(weight) x sqrt(fan_in) of its (first) matrix when watching
            began: 1 is Xavier-like, 1.41 He-like.
        optimizers: Class names of the optimizers.
        learning_rates: Learning rate of each optimizer's first group when watching began.
        parameters: Number of trainable scalars.
    """

    activations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    normalisations: tuple[str, ...] = ()
    recurrent: Mapping[str, str] = field(default_factory=dict)
    init_gain: Mapping[str, float] = field(default_factory=dict)
    optimizers: tuple[str, ...] = ()
    learning_rates: tuple[float, ...] = ()
    parameters: int = 0
