"""What is said of `nonfinite`."""

from __future__ import annotations

from lightning_gradwatch.diagnosis.case import Case, Line
from lightning_gradwatch.diagnosis.words import common


def _found(case: Case) -> bool:
    """Whether it is known where NaN or Inf began."""
    return case.has("in_forward")


CAUSES = (
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
        "The recurrent weights of {recurrent} multiply the signal once for every time step, and "
        "their factor is above one: before a single step it outgrows what a float can hold.",
        lambda case: case.born_too_large and bool(case.recurrent),
    ),
    Line(
        "Before a single step the values outgrow what a float can hold: initial weights or inputs "
        "are too large.",
        lambda case: case.born_too_large,
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

REMEDIES = (
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
        "Take the largest exponent out first, torch.exp(x - x.amax(-1, keepdim=True)), as "
        "torch.softmax and torch.logsumexp do.",
        lambda case: case.has("of_exp"),
    ),
    Line(
        "Start the recurrent weights as an orthogonal matrix: "
        "nn.init.orthogonal_({recurrent_layer}.weight_hh_l0).",
        lambda case: case.born_too_large and bool(case.recurrent),
    ),
    Line(
        common.INITIAL_WEIGHTS.text,
        lambda case: case.born_too_large and not case.unscaled_inputs,
    ),
    Line(common.STANDARDISE_INPUTS.text, lambda case: case.born_too_large and case.unscaled_inputs),
    Line(
        common.OF_EXPLOSION.text,
        lambda case: case.ends("exploding") and not case.has("culprit_batch"),
    ),
    Line(common.LOWER_LR.text, lambda case: case.ends("exploding") or case.has("culprit_weight")),
    Line(
        common.ADAM.text,
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
