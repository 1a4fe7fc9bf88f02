"""Single-factor changes of a faulty run: what advice could have said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.zoo.config import Case, Config


def remedies_of(case: Case) -> dict[str, list[Config]]:
    """Return for each remedy that makes sense here the variants of it."""
    c = case.config
    tries: dict[str, list[dict[str, Any]]] = {
        "lower_lr": [{"lr": c.lr * 0.1}, {"lr": c.lr * 0.01}],
        "higher_lr": [{"lr": c.lr * 10.0**k} for k in (1, 2, 3, 4)],
        "clip": [] if c.clip else [{"clip": 1.0}],
        "warmup": [] if c.warmup else [{"warmup": max(10, c.steps // 10)}],
        "schedule": [{"schedule": "constant", "warmup": 0}]
        if c.schedule != "constant" or c.warmup
        else [],
        "init": _init(c),
        "activation": _activation(c),
        "normalisation": _normalisation(c),
        "residual": [{"residual": "add"}] if c.arch in ("mlp", "cnn") and not c.residual else [],
        "shallower": [{"depth": max(2, c.depth // 4)}, {"depth": max(2, c.depth // 3)}]
        if c.depth > 3 and c.arch != "rnn"
        else [],
        "standardise": _standardise(c),
        "adam": [{"optimizer": "adam", "lr": lr, "momentum": 0.0} for lr in (1e-3, 1e-2)]
        if not c.optimizer.startswith("adam")
        else [],
        "sgd": [{"optimizer": "sgd", "lr": lr, "momentum": 0.9} for lr in (0.01, 0.1)]
        if c.optimizer != "sgd"
        else [],
        "gating": [{"cell": "gru"}, {"cell": "lstm", "forget": 1.0}]
        if c.arch == "rnn" and c.cell.startswith("rnn")
        else ([{"forget": 1.0}, {"forget": 3.0}] if c.cell == "lstm" else []),
        "orthogonal": [{"recurrent": 1.0}]
        if c.arch == "rnn" and c.cell.startswith("rnn") and c.recurrent != 1.0
        else [],
        "weight_decay": [{"weight_decay": 0.0}] if c.weight_decay else [],
        "optimizer_parameters": [{"fault": ""}]
        if c.fault in ("bias_only", "stale_copy", "head_bias_only")
        else [],
        "bug": [{"fault": ""}] if c.fault else [],
    }
    found = {key: [replace(c, **change) for change in changes] for key, changes in tries.items()}
    changed = {key: [v for v in variants if v != c] for key, variants in found.items()}
    return {key: variants for key, variants in changed.items() if variants}


def _init(c: Config) -> list[dict[str, Any]]:
    if c.arch in ("rnn", "transformer", "gan"):
        return [{"gain": 1.0, "recurrent": 1.0}] if c.gain != 1.0 or c.recurrent > 1.0 else []
    changes: list[dict[str, Any]] = [
        {"init": "good", "gain": 1.0, "bias": 0.0},
        {"init": "orthogonal", "gain": 1.0 if c.activation in ("tanh", "sigmoid") else 1.41,
         "bias": 0.0},
    ]  # fmt: skip
    return [k for k in changes if any(getattr(c, name) != value for name, value in k.items())]


def _activation(c: Config) -> list[dict[str, Any]]:
    if c.arch == "rnn":
        return [{"cell": "rnn_relu"}] if c.cell == "rnn" else (
            [{"cell": "rnn"}] if c.cell == "rnn_relu" else []
        )  # fmt: skip
    if c.activation in ("tanh", "sigmoid"):
        return [{"activation": "relu"}, {"activation": "leaky"}]
    if c.activation in ("relu", "relu6"):
        return [{"activation": "leaky"}, {"activation": "gelu"}]
    return []


def _normalisation(c: Config) -> list[dict[str, Any]]:
    if c.norm or c.arch in ("rnn", "gan"):
        return []
    if c.arch == "transformer":
        return [{"norm": "pre"}]
    return [{"norm": "batch"}, {"norm": "layer"}]


def _standardise(c: Config) -> list[dict[str, Any]]:
    changes: list[dict[str, Any]] = []
    if c.in_scale != 1.0 or c.in_offset:
        changes.append({"in_scale": 1.0, "in_offset": 0.0})
    if c.target_scale != 1.0:
        changes.append({"target_scale": 1.0})
    return changes
