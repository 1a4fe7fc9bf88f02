"""What is said of `vanishing` through depth."""

from __future__ import annotations

from lightning_gradwatch.diagnosis.case import Line
from lightning_gradwatch.diagnosis.words import common

_AFTER_EXPLOSION = Line(
    "It follows from the explosion at step {earlier_explosion}, which threw the weights to where "
    "the units are flat or dead.",
    lambda case: case.follows("exploding"),
)

CAUSES = (
    _AFTER_EXPLOSION,
    Line(
        "The weights have shrunk to {weights_left:.2g} of their size: weight decay "
        "({weight_decay:.3g}) takes away more than the gradient gives.",
        lambda case: case.collapsed,
    ),
    Line(
        "Training has thrown the weights to {weights_left:.2g} times their size: the learning "
        "rate{lr} is too high.",
        lambda case: case.overgrown,
    ),
    Line(
        "The weights began at zero, so that no gradient passes through them.",
        lambda case: case.zero_weights,
    ),
    Line(
        "Initial weights this large (std × √fan_in = {gain:.2g}; about 1 is usual) or large inputs "
        "put the units of {activation} on their flat parts, where the derivative is 0.",
        lambda case: bool(case.saturating) and case.large_weights,
    ),
    Line(
        "The units of {activation} sit on their flat parts, where the derivative is 0: inputs or "
        "weights are too large for them.",
        lambda case: bool(case.saturating) and case.has("zero_layers"),
    ),
    Line(
        "The initial weights are too small (std × √fan_in = {gain:.2g}; 1 to 1.4 keeps a signal's "
        "size), so that each layer shrinks the signal.",
        lambda case: case.small_weights,
    ),
    Line(
        "A layer of units that are zero for every input (dead ReLUs) lets no gradient pass.",
        lambda case: case.rectifying and case.has("zero_layers"),
    ),
    Line(
        "A sigmoid's slope is at most 1/4, so that each layer passes on a quarter of the signal or "
        "less.",
        lambda case: "Sigmoid" in case.saturating,
    ),
    Line(
        "The slope of {activation} is below 1 wherever its input is not small, so that each layer "
        "takes its part of the signal.",
        lambda case: bool(case.saturating),
    ),
    Line(
        "Half of each signal is cut off by ReLU, and initial weights with std × √fan_in = "
        "{gain:.2g} do not make up for it (1.41 would), so that it shrinks at each layer.",
        lambda case: case.rectifying and not case.normalised and (case.gain or 9.0) < 1.2,
    ),
    Line(
        "Layers that normalise after each residual connection (norm_first=False) let a part of the "
        "signal through only.",
        lambda case: bool(case.facts.post_norm),
    ),
    Line("Each layer multiplies the signal by a factor below one, and nothing restores its size."),
)

REMEDIES = (
    common.OF_EXPLOSION,
    Line(
        "Keep the weights where they were: lower the learning rate, lr={lower_lr}.",
        lambda case: case.follows("exploding") or case.overgrown,
    ),
    Line(
        "Normalise before each layer, not after: nn.TransformerEncoderLayer(..., norm_first=True).",
        lambda case: bool(case.facts.post_norm),
    ),
    Line(
        "Raise the learning rate slowly over the first steps (warm-up), to a lower one: "
        "lr={lower_lr}.",
        lambda case: bool(case.facts.post_norm),
    ),
    Line("Lower the weight decay: weight_decay=1e-4.", lambda case: case.collapsed),
    Line(
        f"Start from weights that are not zero: {common.HE}.",
        lambda case: case.zero_weights,
    ),
    Line(
        "Standardise the inputs: x = (x - x.mean(0)) / x.std(0).",
        lambda case: bool(case.saturating) and not case.normalised and case.unscaled_inputs,
    ),
    common.NORMALISE,
    Line(
        "Smaller initial weights: nn.init.xavier_normal_(layer.weight).",
        lambda case: case.large_weights,
    ),
    Line(
        "Give the signal a direct way back with residual connections: x = x + block(x).",
        lambda case: not case.shallow and not case.facts.residual,
    ),
    Line(
        "Use an activation with slope 1: nn.ReLU() instead of {activation}, with weights to match: "
        f"{common.HE}.",
        lambda case: bool(case.saturating),
    ),
    Line(
        f"Initialise so that the signal keeps its size: {common.HE}.",
        lambda case: not case.saturating and (case.gain or 0.0) < 1.2,
    ),
    Line(
        f"Larger initial weights: {common.XAVIER}.",
        lambda case: bool(case.saturating) and case.small_weights,
    ),
    Line(
        "Let dead units breathe: nn.LeakyReLU(0.1) instead of nn.ReLU().",
        lambda case: case.rectifying and case.has("zero_layers"),
    ),
    Line("Use fewer layers.", lambda case: not case.shallow),
)
