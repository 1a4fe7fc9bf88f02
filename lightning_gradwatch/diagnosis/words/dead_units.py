"""What is said of `dead_units`."""

from __future__ import annotations

from lightning_gradwatch.diagnosis.case import Line
from lightning_gradwatch.diagnosis.words import common

CAUSES = (
    Line(
        "It follows from the explosion at step {earlier_explosion}, which threw the weights to "
        "where no input reaches the units.",
        lambda case: case.follows("exploding"),
    ),
    Line(
        "The weights began at zero, so that every unit computes zero and none gets a gradient.",
        lambda case: case.zero_weights,
    ),
    Line(
        "The inputs are not standardised: their root mean square is {input_rms:.3g}, where about 1 "
        "is usual, so that one common offset decides which side of zero the units lie on.",
        lambda case: case.unscaled_inputs and case.value("born_dead") == 1,
    ),
    Line(
        "They were off from the first step on: the initial biases or weights put them on the "
        "negative side for every input, where ReLU passes no gradient that could bring them back.",
        lambda case: case.value("born_dead") == 1,
    ),
    Line(
        "They died in training: with the learning rate{lr} a step went too far and pushed them to "
        "the negative side for every input, from which no gradient brings them back.",
    ),
)

REMEDIES = (
    common.OF_EXPLOSION,
    Line(
        "Start from weights that are not zero: nn.init.kaiming_normal_(layer.weight, "
        "nonlinearity='relu').",
        lambda case: case.zero_weights,
    ),
    common.STANDARDISE_INPUTS,
    Line(
        common.LOWER_LR.text,
        lambda case: case.follows("exploding") or case.value("born_dead") == 0,
    ),
    common.NORMALISE,
    common.INITIAL_WEIGHTS,
    Line("Let dead units breathe: nn.LeakyReLU(0.1) instead of nn.ReLU()."),
)
