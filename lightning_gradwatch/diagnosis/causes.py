"""Likely causes, as data: for each code the first line that applies is told."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_gradwatch.diagnosis.case import Case, Line

_AFTER_EXPLOSION = Line(
    "It follows from the explosion at step {earlier_explosion}, which threw the weights to where "
    "the units are flat or dead.",
    lambda case: case.follows("exploding"),
)

_VANISHING_IN_TIME = (
    Line(
        "An LSTM starts with its forget gates half open: half of the memory, and of the error "
        "signal, is lost at each time step.",
        lambda case: case.recurrent.startswith("LSTM"),
    ),
    Line(
        "A GRU starts with its update gates half open: half of the memory, and of the error "
        "signal, is lost at each time step.",
        lambda case: case.recurrent.startswith("GRU"),
    ),
    Line(
        "The recurrent weights of {recurrent} multiply the signal once for every time step, and "
        "their factor is below one.",
        lambda case: bool(case.recurrent),
    ),
    Line("The recurrence multiplies the signal at every time step by a factor below one."),
)

_VANISHING_IN_DEPTH = (
    _AFTER_EXPLOSION,
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
    Line("Each layer multiplies the signal by a factor below one, and nothing restores its size."),
)

_EXPLODING = (
    Line(
        "The limit was set by hand; whether the run suffers is not known.",
        lambda case: case.has("max_norm"),
    ),
    Line(
        "The initial weights are too large (std × √fan_in = {gain:.2g}; about 1 is usual): every "
        "layer, forward and backward, multiplies the signal by more than one.",
        lambda case: case.large_weights and not case.shallow,
    ),
    Line(
        "The recurrent weights of {recurrent} multiply the signal once for every time step, and "
        "their factor is above one.",
        lambda case: case.has("early_elasticity") and bool(case.recurrent),
    ),
    Line(
        "Each layer multiplies the signal by more than one on its way back, and nothing holds its "
        "size.",
        lambda case: case.has("early_elasticity"),
    ),
    Line(
        "The steps are too long for this loss: {optimizer}'s learning rate{lr} is too high for the "
        "size of the inputs, which are probably not standardised.",
        lambda case: case.shallow and not case.adaptive,
    ),
    Line(
        "The learning rate{lr} is too high: one step promised to lower the loss by "
        "{step_length:.2g} times its value, and overshot.",
        lambda case: case.value("step_length") > 1,
    ),
    Line("The steps have become too long for the loss: the learning rate{lr} is too high."),
)

_NONFINITE = (
    Line(
        "The data hold values that are not finite: a missing value, a division in the "
        "preparation, or a number outside the range of its type.",
        lambda case: case.has("culprit_batch"),
    ),
    Line(
        "It follows from the explosion at step {earlier_explosion}: the numbers outgrew what a "
        "float can hold.",
        lambda case: case.ends("exploding"),
    ),
    Line(
        "Training had already broken the weights: an earlier step had a gradient that was not "
        "finite, or was far too long.",
        lambda case: case.has("culprit_weight"),
    ),
    Line(
        "A buffer is not finite, which no gradient mends: running statistics that saw a bad batch, "
        "or a table computed with a division by 0.",
        lambda case: case.has("culprit_buffer"),
    ),
    Line(
        "Half precision ends at {out_of_range:,.0f}; the values here are larger.",
        lambda case: 0 < case.value("out_of_range") < 1e6,
    ),
    Line(
        "The values outgrew what a float can hold: they are not kept in range on their way here.",
        lambda case: case.value("out_of_range") > 0,
    ),
    Line(
        "Some row of the attention mask allows no position at all, as padding does for a sequence "
        "of length 0.",
        lambda case: case.value("masked") == 1 and case.has("of_softmax"),
    ),
    Line(
        "Nothing was left to average: an empty selection, such as a batch without a single target.",
        lambda case: case.has("empty") and case.has("of_mean"),
    ),
    Line(
        "Its slope at 0 is infinite, so that the forward pass is fine and the backward pass is "
        "not; torch.where does not help, since it hides a value and not its derivative.",
        lambda case: case.value("in_forward") == 0 and case.value("zeros") > 0,
    ),
    Line(
        "An argument reached 0 or went below it, where the function is not defined.",
        lambda case: (
            case.value("in_forward") == 1 and (case.value("zeros") + case.value("negatives")) > 0
        ),
    ),
    Line(
        "It did not come back when the batch was replayed: another rank's batch, random numbers "
        "of numpy, a batch that can be read only once, or a fault of the device.",
        lambda case: case.value("replayed") == 1 and case.value("reproduced") == 0,
    ),
    Line(
        "The loss scale cannot become small enough: the gradients are too large for half "
        "precision, or not finite at any scale.",
        lambda case: case.has("overflows"),
    ),
    Line(
        "The forward pass or the loss produced it: NaN in the batch, log or division of 0, or "
        "weights that are NaN since an earlier step.",
        lambda case: case.value("loss_is_finite") == 0 and case.value("everywhere") == 1,
    ),
    Line(
        "The loss is finite and its derivative is not: sqrt, norm or a power at 0, or a division "
        "that torch.where hides in the forward pass only.",
        lambda case: case.value("everywhere") == 1,
    ),
    Line(
        "It began in the backward pass just behind {last_layer} and spread towards the input: "
        "sqrt, norm or a power at 0, or a division by 0.",
        lambda case: case.value("layers") > 0,
    ),
    Line("The loss overflowed, or took the log of 0, while its gradient stayed finite."),
)

_SPIKE = (
    Line("A batch unlike the others, or a sharp place of the loss; the run may recover by itself."),
)

_NO_GRADIENT = (
    Line(
        "They take no part in the loss: never called in forward, cut off by detach(), no_grad() or "
        "argmax, or given to no optimizer."
    ),
)


CAUSES: Mapping[str, tuple[Line, ...]] = {
    "exploding": _EXPLODING,
    "nonfinite": _NONFINITE,
    "no_gradient": _NO_GRADIENT,
    "spike": _SPIKE,
    "vanishing": _VANISHING_IN_DEPTH,
    "vanishing in time": _VANISHING_IN_TIME,
}


def cause_of(case: Case, kind: str) -> str:
    """Return the likely cause of a kind of finding; "" for kinds that are not ours."""
    return next((line.fill(case) for line in CAUSES.get(kind, ()) if line.when(case)), "")
