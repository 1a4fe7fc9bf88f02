"""What is said of `saturated`."""

from __future__ import annotations

from lightning_gradwatch.diagnosis.case import Line
from lightning_gradwatch.diagnosis.words import common

CAUSES = (
    Line(
        "It follows from the explosion at step {earlier_explosion}, which threw the weights to "
        "where the units are flat.",
        lambda case: case.follows("exploding"),
    ),
    Line(
        "The inputs are not standardised: their root mean square is {input_rms:.3g}, where about 1 "
        "is usual.",
        lambda case: case.unscaled_inputs,
    ),
    Line(
        "The initial weights are too large (std × √fan_in = {gain:.2g}; about 1 is usual).",
        lambda case: case.large_weights and case.value("born_saturated") == 1,
    ),
    Line(
        "They were on their flat parts from the first step on: what they are given is too large.",
        lambda case: case.value("born_saturated") == 1,
    ),
    Line(
        "Training drove them there: with the learning rate{lr} steps went too far and made the "
        "weights large."
    ),
)

REMEDIES = (
    common.OF_EXPLOSION,
    common.STANDARDISE_INPUTS,
    Line(
        "Smaller initial weights: nn.init.xavier_normal_(layer.weight).",
        lambda case: case.large_weights,
    ),
    Line(common.LOWER_LR.text, lambda case: case.value("born_saturated") == 0),
    Line(
        "Smaller initial weights: nn.init.xavier_normal_(layer.weight); for recurrent ones "
        "nn.init.orthogonal_(rnn.weight_hh_l0).",
        lambda case: case.value("born_saturated") == 1,
    ),
    common.NORMALISE,
    Line(
        "Use an activation that does not saturate: nn.ReLU() or nn.GELU() instead of {activation}."
    ),
)
