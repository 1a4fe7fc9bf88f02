"""Reads the facts that choose a remedy from the model and its optimizers, once, at the start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from lightning_gradwatch.facts import ModelFacts
from lightning_gradwatch.probe.host import Host
from lightning_gradwatch.probe.parameters import clean_name
from lightning_gradwatch.probe.sharded import is_sharded

_NORMS = (
    nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm,
)  # fmt: skip

_TRANSFORMER = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def read_facts(
    module: nn.Module, optimizers: Sequence[torch.optim.Optimizer], host: Host
) -> ModelFacts:
    """Look at a model before its first step; costs one pass over the weights and one transfer."""
    activations: dict[str, list[str]] = {}
    norms: list[str] = []
    recurrent: dict[str, str] = {}
    post_norm: list[str] = []
    residual = False
    spreads: dict[str, tuple[int, torch.Tensor]] = {}
    for raw, child in module.named_modules():
        name = clean_name(raw)
        if isinstance(child, _NORMS) or type(child).__name__.endswith("RMSNorm"):
            norms.append(name)
        elif isinstance(child, (nn.RNNBase, nn.RNNCellBase)):
            recurrent[name] = _recurrent_kind(child)
        elif type(child).__module__ == "torch.nn.modules.activation" and not isinstance(
            child, (nn.MultiheadAttention, nn.Softmax, nn.LogSoftmax)
        ):
            activations.setdefault(type(child).__name__, []).append(name)
        if isinstance(child, _TRANSFORMER):
            residual = True
            if not child.norm_first:
                post_norm.append(name)
        weight = getattr(child, "weight", None)
        # A row of an embedding is looked up, not multiplied: it has no fan-in.
        if _is_whole_matrix(weight) and not isinstance(child, (nn.Embedding, nn.EmbeddingBag)):
            values = weight.detach()
            spread = torch.abs(values).square().mean(dtype=torch.float32).sqrt()
            spreads[name] = (weight[0].numel(), spread)
    fetched = host.fetch([spread for _, spread in spreads.values()])
    return ModelFacts(
        activations={kind: tuple(names) for kind, names in activations.items()},
        normalisations=tuple(norms),
        recurrent=recurrent,
        init_gain={
            name: float(value[0]) * math.sqrt(fan_in)
            for (name, (fan_in, _)), value in zip(spreads.items(), fetched, strict=True)
        },
        optimizers=tuple(type(o).__name__ for o in optimizers),
        learning_rates=tuple(learning_rate(o) for o in optimizers),
        parameters=sum(p.numel() for p in module.parameters() if p.requires_grad),
        left_out=_left_out(module, optimizers),
        post_norm=tuple(post_norm),
        residual=residual,
        weight_decays=tuple(_option(o, "weight_decay") for o in optimizers),
        momenta=tuple(_option(o, "momentum") for o in optimizers),
    )


def _left_out(module: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> tuple[str, ...]:
    """Name the trainable parameters that no optimizer holds; none if there is no optimizer.

    None either if an optimizer holds sharded ones that the model does not show: after a validation
    FSDP2 leaves gathered ones in their place, until the next backward pass.
    """
    held = {id(p): p for o in optimizers for group in o.param_groups for p in group["params"]}
    shown = {id(p) for p in module.parameters()}
    if not held or any(is_sharded(p) for key, p in held.items() if key not in shown):
        return ()
    named = module.named_parameters()
    return tuple(clean_name(n) for n, p in named if p.requires_grad and id(p) not in held)


def _option(optimizer: torch.optim.Optimizer, name: str) -> float:
    """Return an option of the first group; 0 where it is not set, or is no number."""
    groups = optimizer.param_groups
    value = groups[0].get(name, 0.0) if groups else 0.0
    return float(value) if isinstance(value, (int, float)) else 0.0


def _is_whole_matrix(weight: object) -> TypeGuard[nn.Parameter]:
    """Whether a weight's spread can be read here: a shard's is not that of the whole."""
    return (
        isinstance(weight, nn.Parameter)
        and not is_lazy(weight)
        and not is_sharded(weight)
        and weight.dim() >= 2
        and weight.numel() > 1
    )


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """Return the learning rate of the first group; NaN where an optimizer has none."""
    groups = optimizer.param_groups
    return float(groups[0].get("lr", math.nan)) if groups else math.nan


def _recurrent_kind(module: nn.Module) -> str:
    kind = type(module).__name__
    nonlinearity = getattr(module, "nonlinearity", None)
    return f"{kind}({nonlinearity})" if nonlinearity else kind
