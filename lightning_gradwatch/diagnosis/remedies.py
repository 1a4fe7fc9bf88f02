"""What to try, as data: for each code the lines that apply, best first, with the code to change.

The order is that of measured success on sick runs: against vanishing, normalisation, residual
connections, activation, initialisation, in this order, and no change of the learning rate and no
clipping ever; against an explosion, a lower learning rate and Adam far before clipping.
"""

from __future__ import annotations

from collections.abc import Mapping

from lightning_gradwatch.diagnosis.case import Case, Line

#: So many remedies at most: who is given ten tries none.
_MOST = 4

_LOWER_LR = Line("Lower the learning rate: lr={lower_lr}.")
_ADAM = Line(
    "Use Adam, whose steps do not grow with the gradient: torch.optim.Adam(model.parameters(), "
    "lr=1e-3).",
    lambda case: not case.adaptive,
)
_NORMALISE = Line(
    "Normalise between layers: nn.BatchNorm1d(width) (or nn.LayerNorm) after each nn.Linear, "
    "nn.BatchNorm2d(channels) after each convolution.",
    lambda case: not case.normalised and not case.shallow,
)
_DECAY = Line(
    "Let GradWatch lower the learning rate when it happens: GradWatch(actions=[DecayLR()])."
)
_STANDARDISE = Line(
    "Standardise inputs and targets: x = (x - x.mean(0)) / x.std(0).",
    lambda case: not case.normalised,
)
_HE = "nn.init.kaiming_normal_(layer.weight, nonlinearity='relu'); nn.init.zeros_(layer.bias)"
_XAVIER = "nn.init.xavier_normal_(layer.weight, gain=5 / 3)"

_VANISHING_IN_DEPTH = (
    Line(
        "Keep the weights where they were: lower the learning rate, lr={lower_lr}.",
        lambda case: case.follows("exploding"),
    ),
    Line(
        "Standardise the inputs: x = (x - x.mean(0)) / x.std(0).",
        lambda case: case.has("zero_layers") and bool(case.saturating) and not case.normalised,
    ),
    _NORMALISE,
    Line(
        "Smaller initial weights: nn.init.xavier_normal_(layer.weight).",
        lambda case: case.large_weights,
    ),
    Line(
        "Give the signal a direct way back with residual connections: x = x + block(x).",
        lambda case: not case.shallow,
    ),
    Line(
        "Use an activation with slope 1: nn.ReLU() instead of {activation}, with weights to match: "
        f"{_HE}.",
        lambda case: bool(case.saturating),
    ),
    Line(
        f"Initialise so that the signal keeps its size: {_HE}.",
        lambda case: not case.saturating and (case.gain or 0.0) < 1.2,
    ),
    Line(
        f"Larger initial weights: {_XAVIER}.",
        lambda case: bool(case.saturating) and case.small_weights,
    ),
    Line("Let dead units breathe: nn.LeakyReLU(0.1) instead of nn.ReLU().",
         lambda case: case.rectifying and case.has("zero_layers")),
    Line("Use fewer layers.", lambda case: not case.shallow),
)  # fmt: skip

_VANISHING_IN_TIME = (
    Line(
        "Use gates that stay open: nn.LSTM, its forget gate biased at the start: "
        "lstm.bias_ih_l0.data[hidden:2 * hidden] = 4.",
        lambda case: not case.recurrent.startswith(("LSTM", "GRU")),
    ),
    Line(
        "Open the forget gates at the start: {last_layer}.bias_ih_l0.data[hidden:2 * hidden] = 4.",
        lambda case: case.recurrent.startswith("LSTM"),
    ),
    Line(
        "Close the update gates at the start: {last_layer}.bias_ih_l0.data[hidden:2 * hidden] = 4.",
        lambda case: case.recurrent.startswith("GRU"),
    ),
    Line(
        "Start the recurrent weights as an identity: nn.init.eye_({last_layer}.weight_hh_l0) with "
        "nonlinearity='relu' and biases of 0.",
        lambda case: case.recurrent.startswith("RNN"),
    ),
    Line("Shorten the way: shorter sequences, fewer steps per second, or attention over them."),
)

_SMALLER_INIT = Line(
    "Smaller initial weights: nn.init.kaiming_normal_(layer.weight, nonlinearity='relu'), or "
    "nn.init.xavier_normal_(layer.weight) for tanh.",
    lambda case: case.large_weights and not case.shallow,
)
_EXPLODING = (
    Line(
        "Start the recurrent weights as an orthogonal matrix: "
        "nn.init.orthogonal_(rnn.weight_hh_l0).",
        lambda case: case.has("early_elasticity") and bool(case.recurrent),
    ),
    _SMALLER_INIT,
    _LOWER_LR,
    Line(_STANDARDISE.text, lambda case: case.shallow and not case.normalised),
    _ADAM,
    _NORMALISE,
    Line(
        "Raise the learning rate slowly over the first steps (warm-up).",
        lambda case: case.adaptive,
    ),
    _DECAY,
)


def _found(case: Case) -> bool:
    """Whether it is known where NaN or Inf began."""
    return case.has("in_forward")


_NONFINITE = (
    Line(
        "Clean the data, and let the dataset say so: assert torch.isfinite(x).all().",
        lambda case: case.has("culprit_batch"),
    ),
    Line(
        "Keep the argument of log away from 0: torch.log(x.clamp_min(1e-8)), or work with logits: "
        "F.log_softmax, F.binary_cross_entropy_with_logits.",
        lambda case: case.has("of_log"),
    ),
    Line(
        "Add an epsilon inside the root: torch.sqrt(x + 1e-8), (x.square().sum(-1) + 1e-8).sqrt().",
        lambda case: any(case.has(f"of_{name}") for name in ("sqrt", "norm", "power", "rsqrt")),
    ),
    Line(
        "Keep the divisor away from 0: a / (b + 1e-8), or a / b.clamp_min(1e-8).",
        lambda case: case.has("of_division"),
    ),
    Line(
        "Let every row of the mask allow one position at least, or zero such rows afterwards: "
        "torch.nan_to_num(weights).",
        lambda case: case.value("masked") == 1 and case.has("of_softmax"),
    ),
    Line(
        "Leave the term out where nothing was selected: "
        "loss = x[mask].mean() if mask.any() else x.sum() * 0.",
        lambda case: case.has("empty"),
    ),
    Line(
        "Keep exponents small: torch.exp(x.clamp_max(80)), torch.logsumexp, F.softplus.",
        lambda case: case.has("of_exp"),
    ),
    Line(_LOWER_LR.text, lambda case: case.ends("exploding") or case.has("culprit_weight")),
    Line(
        _ADAM.text,
        lambda case: case.ends("exploding") and not case.adaptive and not case.has("culprit_batch"),
    ),
    Line(
        "Use precision='bf16-mixed', which has the range of float32 and needs no loss scale.",
        lambda case: case.has("overflows") or 0 < case.value("out_of_range") < 1e6,
    ),
    Line(
        "Bring the values down before this place: normalise, or lower the learning rate.",
        lambda case: case.value("out_of_range") > 0,
    ),
    Line(
        "Start from a checkpoint of before, and keep such steps out from there on: "
        "GradWatch(actions=[SkipStep()]).",
        lambda case: case.has("culprit_weight") or case.has("culprit_buffer"),
    ),
    Line(
        "Look at the batch: assert torch.isfinite(x).all().",
        lambda case: (
            not case.ends("exploding") and not _found(case) and case.value("loss_is_finite") == 0
        ),
    ),
    Line(
        "Find the line: Trainer(detect_anomaly=True), or torch.autograd.set_detect_anomaly(True).",
        lambda case: not case.ends("exploding") and not _found(case),
    ),
    Line(
        "Keep arguments away from 0: torch.sqrt(x + 1e-8), torch.log(x.clamp_min(1e-8)), "
        "a / (b + 1e-8).",
        lambda case: not case.ends("exploding") and not _found(case),
    ),
    Line("Leave such steps out: GradWatch(actions=[SkipStep()])."),
)

_SPIKE = (
    Line("Look at the batches of these steps: outliers, wrong labels, lengths, duplicates."),
    Line(
        "If it comes back, cut it off: GradWatch(actions=[ClipGradNorm(max_norm={clip})]), five "
        "times the usual norm."
    ),
)

_NO_GRADIENT = (
    Line(
        "Use them in forward, or say that they are not to be trained: "
        "parameter.requires_grad_(False)."
    ),
    Line("See that configure_optimizers passes self.parameters(), all of them."),
)

REMEDIES: Mapping[str, tuple[Line, ...]] = {
    "exploding": _EXPLODING,
    "nonfinite": _NONFINITE,
    "no_gradient": _NO_GRADIENT,
    "spike": _SPIKE,
    "vanishing": _VANISHING_IN_DEPTH,
    "vanishing in time": _VANISHING_IN_TIME,
}


def remedies_for(case: Case, kind: str) -> tuple[str, ...]:
    """Return what to try against a kind of finding, best first; nothing for kinds not ours."""
    lines = [line for line in REMEDIES.get(kind, ()) if line.when(case)]
    return tuple(dict.fromkeys(line.fill(case) for line in lines))[:_MOST]
