"""What is said of `exploding`."""

from __future__ import annotations

from lightning_gradwatch.diagnosis.case import Line
from lightning_gradwatch.diagnosis.words import common

CAUSES = (
    Line(
        "The limit was set by hand; whether the run suffers is not known.",
        lambda case: case.has("max_norm"),
    ),
    Line(
        "The loss has no lower end: it fell to {loss:.3g} and is still falling, as it does where "
        "its sign is wrong.",
        lambda case: case.value("loss") < 0,
    ),
    Line(
        "The schedule has raised the learning rate to {lr_now:.3g}, {lr_growth:.3g} times what it "
        "had been while the run was calm.",
        lambda case: case.value("lr_growth") > 3,
    ),
    Line(
        "The initial weights are too large (std × √fan_in = {gain:.2g}; about 1 is usual): every "
        "layer, forward and backward, multiplies the signal by more than one.",
        lambda case: case.large_weights and not case.shallow,
    ),
    Line(
        "The inputs are not standardised: their root mean square is {input_rms:.3g}, where about 1 "
        "is usual, and every layer hands that on.",
        lambda case: case.unscaled_inputs,
    ),
    Line(
        "The targets are not standardised: outputs would have to be as large as {target_size:.2g}, "
        "where about 1 is usual.",
        lambda case: case.unscaled_targets,
    ),
    Line(
        "The recurrent weights of {recurrent} multiply the signal once for every time step, and "
        "their factor is above one.",
        lambda case: case.initial and bool(case.recurrent),
    ),
    Line(
        "Each layer multiplies the signal by more than one, and nothing holds its size.",
        lambda case: case.initial,
    ),
    Line(
        "The steps are too long for this loss: {optimizer}'s learning rate{lr} is too high for the "
        "size of the inputs, which are probably not standardised.",
        lambda case: case.shallow and not case.adaptive and case.facts.input_rms > 0,
    ),
    Line(
        "The learning rate{lr} is too high: one step promised to lower the loss by "
        "{step_length:.2g} times its value, and overshot.",
        lambda case: case.value("step_length") > 1,
    ),
    Line("The steps have become too long for the loss: the learning rate{lr} is too high."),
)

REMEDIES = (
    Line(
        "Look for the sign of the loss: it falls without end. Minimise -reward, not reward; see "
        "that maximize=True is not set, and that no term of the loss is unbounded below.",
        lambda case: case.value("loss") < 0,
    ),
    Line(
        "Keep the schedule from raising the learning rate: it had been {lr_calm:.3g} while the run "
        "was calm, and is {lr_now:.3g} now.",
        lambda case: case.value("lr_growth") > 3,
    ),
    Line(
        "Smaller initial weights: nn.init.kaiming_normal_(layer.weight, nonlinearity='relu'), or "
        "nn.init.xavier_normal_(layer.weight) for tanh.",
        lambda case: case.large_weights and not case.recurrent,
    ),
    Line(
        "Start the recurrent weights as an orthogonal matrix: "
        "nn.init.orthogonal_({recurrent_layer}.weight_hh_l0).",
        lambda case: (case.large_weights or case.initial) and bool(case.recurrent),
    ),
    Line(
        "Standardise the targets: y = (y - y.mean(0)) / y.std(0).",
        lambda case: case.unscaled_targets and not case.unscaled_inputs,
    ),
    Line(
        "Standardise inputs and targets: x = (x - x.mean(0)) / x.std(0).",
        lambda case: case.unscaled_inputs and (case.unscaled_targets or not case.normalised),
    ),
    Line(common.INITIAL_WEIGHTS.text, lambda case: case.has("forward_growth")),
    common.LOWER_LR,
    common.ADAM,
    Line(
        "Standardise inputs and targets: x = (x - x.mean(0)) / x.std(0).",
        lambda case: case.shallow and not case.normalised and case.facts.input_rms > 0,
    ),
    common.NORMALISE,
    Line(
        "Raise the learning rate slowly over the first steps (warm-up).",
        lambda case: case.adaptive,
    ),
    common.DECAY,
)
