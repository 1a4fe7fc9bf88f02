"""One training run as plain values, so that a twin or a remedy is one factor replaced."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields, replace

#: Fields that are one factor together: initialisation is a scheme with its gain and its bias.
FACTORS: dict[str, tuple[str, ...]] = {
    "initialisation": ("init", "gain", "bias", "recurrent", "forget"),
    "normalisation": ("norm",),
    "optimizer": ("optimizer", "lr", "momentum"),
    "schedule": ("schedule", "warmup"),
    "inputs": ("in_scale", "in_offset"),
}


@dataclass(frozen=True)
class Config:
    """Everything that decides a run.

    Attributes:
        task: A key of `tasks.TASKS`.
        arch: "mlp", "cnn", "rnn", "transformer", "bag", "autoencoder" or "gan".
        depth: Hidden layers or blocks; layers of a recurrent net.
        width: Units or channels of each.
        activation: "relu", "leaky", "gelu", "tanh", "sigmoid", "relu6", "elu".
        functional: Call activations as functions, which no hook on modules sees.
        init: "good" (He or Xavier, by activation), "torch" (its defaults), "normal" (std `gain`),
            "orthogonal" or "zero".
        gain: Factor on the initial matrices.
        bias: Initial bias of hidden layers.
        recurrent: Gain of an orthogonal recurrent matrix; 0 leaves torch's default.
        forget: Initial bias of an LSTM's forget gate.
        norm: "", "batch" or "layer"; for transformers "pre", "post" or "".
        residual: "", "add", "gate" (zero-initialised scalar) or "zero" (zero-initialised matrix).
        dropout: Probability.
        cell: "rnn", "rnn_relu", "lstm" or "gru".
        loop: A cell called in a Python loop instead of a module over the sequence.
        embed: A linear layer before the recurrent one.
        tied: Share matrices: decoder with encoder, head with embedding.
        sparse: L1 weight on the code of an autoencoder.
        sparse_grad: Sparse gradients of the embedding.
        frozen: So many early layers do not learn.
        lora: Rank of adapters on frozen layers; 0 for none.
        pretrain: Steps of training before the run begins.
        shift: Pretrain on inputs turned by this angle: another task, nearly.
        optimizer: "sgd", "adam", "adamw", "rmsprop" or "adagrad".
        lr: Learning rate.
        momentum: Momentum of SGD, first beta of Adam if above 0.
        weight_decay: Of the optimizer.
        schedule: A key of `models.SCHEDULES`.
        warmup: Steps over which the learning rate rises from 0.
        in_scale: Factor on the inputs.
        in_offset: Added to the inputs afterwards.
        target_scale: Factor on regression targets.
        loss: "" for the task's own; "hinge", "huber", "mae", "onehot_mse".
        loss_scale: Factor on the loss.
        clip: Trainer's gradient_clip_val; 0 for none.
        accumulate: Micro-batches to a step.
        precision: "32", "bf16" or "fp16".
        batch: Samples to a micro-batch.
        steps: Optimizer steps.
        fault: A key of `faults.FAULTS`, or "".
        ablate: "", "layers" (the early half frozen) or "time" (the early half cut off).
        seed: Of initialisation, order of the data and dropout.
    """

    task: str
    arch: str = "mlp"
    depth: int = 3
    width: int = 32
    activation: str = "relu"
    functional: bool = False
    init: str = "good"
    gain: float = 1.0
    bias: float = 0.0
    recurrent: float = 0.0
    forget: float = 0.0
    norm: str = ""
    residual: str = ""
    dropout: float = 0.0
    cell: str = "rnn"
    loop: bool = False
    embed: bool = True
    tied: bool = False
    sparse: float = 0.0
    sparse_grad: bool = False
    frozen: int = 0
    lora: int = 0
    pretrain: int = 0
    shift: float = 0.0
    optimizer: str = "adam"
    lr: float = 3e-3
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: int = 0
    in_scale: float = 1.0
    in_offset: float = 0.0
    target_scale: float = 1.0
    loss: str = ""
    loss_scale: float = 1.0
    clip: float = 0.0
    accumulate: int = 1
    precision: str = "32"
    batch: int = 32
    steps: int = 300
    fault: str = ""
    ablate: str = ""
    seed: int = 0

    def digest(self) -> str:
        """Return a short hash of all values."""
        return hashlib.sha256(repr(asdict(self)).encode()).hexdigest()[:12]

    def factor_changed(self, other: Config) -> str:
        """Return the factor in which the two differ, or "" if there is none or more than one."""
        changed = {f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)}
        if len(changed) == 1:
            return changed.pop()
        return next((k for k, group in FACTORS.items() if changed and changed <= {*group}), "")


@dataclass(frozen=True)
class Case:
    """A candidate for the zoo.

    Attributes:
        name: Unique over all splits.
        family: Kind of fault or of health, for the table.
        config: The run.
        twin: Fields and values that put the injected factor right; empty for a healthy candidate.
        tricky: Of a kind that careless rules call sick.
    """

    name: str
    family: str
    config: Config
    twin: tuple[tuple[str, object], ...] = ()
    tricky: bool = False

    @property
    def twin_config(self) -> Config | None:
        """The same run with the injected factor put right; None where nothing was injected."""
        return replace(self.config, **dict(self.twin)) if self.twin else None  # type: ignore[arg-type]

    def digest(self) -> str:
        """Return a short hash of everything that decides the verdict."""
        text = f"{self.name}{self.family}{self.config.digest()}{self.twin}{self.tricky}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]
