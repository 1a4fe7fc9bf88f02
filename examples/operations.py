"""Remedies for which an example has no switch, done to its network before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from examples.mlp import ACTIVATIONS

Operation = Callable[[nn.Module], None]

_INITS: dict[str, Callable[[Tensor], object]] = {
    "he": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "xavier": nn.init.xavier_normal_,
    "orthogonal": nn.init.orthogonal_,
}


def activations(name: str) -> Operation:
    """Return what puts another activation in the place of each."""

    def operate(model: nn.Module) -> None:
        for parent, key, _ in _modules(model, *ACTIVATIONS.values()):
            setattr(parent, key, ACTIVATIONS[name]())

    return operate


def weights(name: str) -> Operation:
    """Return what draws all weights anew, by He's rule, Xavier's, or orthogonal; biases are 0."""

    @torch.no_grad()
    def operate(model: nn.Module) -> None:
        for _, _, layer in _modules(model, nn.Linear, nn.Conv2d):
            _INITS[name](layer.weight)
            nn.init.zeros_(layer.bias)

    return operate


def recurrent_weights(name: str) -> Operation:
    """Return what draws the weights from state to state anew."""

    @torch.no_grad()
    def operate(model: nn.Module) -> None:
        _INITS[name](model.rnn.weight_hh_l0)

    return operate


def dropout(model: nn.Module) -> None:
    """Drop a fifth of the units after each activation."""
    for parent, key, activation in _modules(model, *ACTIVATIONS.values()):
        setattr(parent, key, nn.Sequential(activation, nn.Dropout(0.2)))


def drop_inputs(model: nn.Module) -> None:
    """Drop a fifth of what goes into the recurrent layer; not of its state (Zaremba 2014)."""
    model.norm = nn.Dropout(0.2)


def weight_norms(model: nn.Module) -> None:
    """Reparametrise each weight but the head's into direction and length."""
    for _, key, layer in _modules(model, nn.Linear, nn.Conv2d):
        if key != "head":
            parametrizations.weight_norm(layer)


def recurrent_weight_norm(model: nn.Module) -> None:
    """Reparametrise the weights from state to state."""
    rnn = model.rnn
    parametrizations.weight_norm(rnn, "weight_hh_l0")

    def refresh(module: nn.RNN, inputs: object) -> None:
        # nn.RNN reads its weights from a list, made when there was no reparametrisation.
        module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]

    rnn.register_forward_pre_hook(refresh)


def skips(model: nn.Module) -> None:
    """Add to each hidden layer's output its input, wherever both have the same size."""
    for i in range(len(model.hidden)):
        model.hidden[i] = _Skip(model.hidden[i])


def two_layers(model: nn.Module) -> None:
    """Put a second recurrent layer on top of the first."""
    width = model.rnn.hidden_size
    model.rnn = nn.RNN(model.rnn.input_size, width, num_layers=2, batch_first=True)


class _Skip(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


def _modules(model: nn.Module, *kinds: type) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Return every module of these classes with its parent and its name there."""
    for parent in list(model.modules()):
        for key, child in list(parent.named_children()):
            if isinstance(child, kinds):
                yield parent, key, child
