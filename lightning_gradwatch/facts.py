"""What is known of a model and its optimizers when watching begins: plain values for the diagnosis.

Remedies are chosen by these facts: it makes no sense to advise ReLU to a network that has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lightning_gradwatch.sample import ModuleFlow

#: Names of activation functions, and of the modules that apply them.
_CLASS_OF = {
    "gelu": "GELU", "hardsigmoid": "Hardsigmoid", "hardswish": "Hardswish", "hardtanh": "Hardtanh",
    "mish": "Mish", "relu": "ReLU", "relu6": "ReLU6", "sigmoid": "Sigmoid", "silu": "SiLU",
    "tanh": "Tanh",
}  # fmt: skip


@dataclass(frozen=True)
class ModelFacts:
    """Facts about the model, its initial weights and its optimizers.

    Attributes:
        activations: Class name of each activation module found, to the names of those modules, in
            definition order. Functional activations (`F.relu`) appear once they were seen at work.
        normalisations: Names of BatchNorm, LayerNorm, GroupNorm and similar modules.
        recurrent: Name of each recurrent module to its kind: `"RNN(tanh)"`, `"RNN(relu)"`,
            `"LSTM"`, `"GRU"`, cells included.
        init_gain: Layer name to std(weight) x sqrt(fan_in) of its (first) matrix when watching
            began: 1 is Xavier-like, 1.41 He-like.
        optimizers: Class names of the optimizers.
        learning_rates: Learning rate of each optimizer's first group when watching began.
        parameters: Number of trainable scalars.
        left_out: Names of trainable parameters that no optimizer holds.
        weight_decays: Weight decay of each optimizer's first group.
        momenta: Momentum of each optimizer's first group; 0 where it has none.
        input_rms: Root mean square of the data that enters the model, largest of its inputs; 0
            while unknown. About 1 if it is standardised.
        target_size: Size of outputs that would do away with the loss, where it is far beyond that
            of the first ones; 0 otherwise or while unknown. For the mean square error half the
            root mean square of the targets.
        post_norm: Names of torch's transformer layers that normalise after each residual.
        residual: Whether the model has modules of torch's with residual connections.
    """

    activations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    normalisations: tuple[str, ...] = ()
    recurrent: Mapping[str, str] = field(default_factory=dict)
    init_gain: Mapping[str, float] = field(default_factory=dict)
    optimizers: tuple[str, ...] = ()
    learning_rates: tuple[float, ...] = ()
    parameters: int = 0
    left_out: tuple[str, ...] = ()
    weight_decays: tuple[float, ...] = ()
    momenta: tuple[float, ...] = ()
    input_rms: float = 0.0
    target_size: float = 0.0
    post_norm: tuple[str, ...] = ()
    residual: bool = False

    def seen(self, modules: ModuleFlow) -> ModelFacts:
        """Return these facts together with what one look into the modules adds to them.

        Activations that are called as functions, and the size of the inputs.
        """
        called = {
            kind: names
            for kind in dict.fromkeys(
                k for k, f in zip(modules.kinds, modules.functional, strict=True) if f
            )
            if (
                names := tuple(
                    n for n, k in zip(modules.names, modules.kinds, strict=True) if k == kind
                )
            )
        }
        fresh = {_CLASS_OF.get(k, k): n for k, n in called.items()}
        sizes = modules.in_rms[np.isfinite(modules.in_rms)]
        return replace(
            self,
            activations={**fresh, **self.activations},
            input_rms=self.input_rms or float(sizes.max(initial=0.0)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python types only."""
        return {
            "activations": {kind: list(names) for kind, names in self.activations.items()},
            "normalisations": list(self.normalisations),
            "recurrent": dict(self.recurrent),
            "init_gain": dict(self.init_gain),
            "optimizers": list(self.optimizers),
            "learning_rates": list(self.learning_rates),
            "parameters": self.parameters,
            "left_out": list(self.left_out),
            "weight_decays": list(self.weight_decays),
            "momenta": list(self.momenta),
            "input_rms": self.input_rms,
            "target_size": self.target_size,
            "post_norm": list(self.post_norm),
            "residual": self.residual,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelFacts:
        """Rebuild what `to_dict` returned."""
        return cls(
            **{
                **data,
                "activations": {kind: tuple(n) for kind, n in data["activations"].items()},
                "normalisations": tuple(data["normalisations"]),
                "optimizers": tuple(data["optimizers"]),
                "learning_rates": tuple(data["learning_rates"]),
                **{
                    name: tuple(data.get(name, ()))
                    for name in ("left_out", "weight_decays", "momenta", "post_norm")
                },
            }
        )
