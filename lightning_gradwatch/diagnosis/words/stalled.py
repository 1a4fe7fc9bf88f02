"""What is said of `stalled`."""

from __future__ import annotations

from lightning_gradwatch.diagnosis.case import Line

_LEFT_OUT = "left_out_share"

CAUSES = (
    Line(
        "The optimizer holds none of the model's parameters that have a gradient: it was given "
        "others, such as those of a copy.",
        lambda case: case.value(_LEFT_OUT) == 1,
    ),
    Line(
        "The optimizer does not hold most of the trainable parameters: they never move.",
        lambda case: case.value(_LEFT_OUT) > 0.5,
    ),
    Line(
        "The schedule has brought the learning rate from {peak_lr:.3g} down to {lr_now:.3g} before "
        "anything was learnt.",
        lambda case: case.decayed,
    ),
    Line(
        "The warm-up is too long: the learning rate is still only {lr_now:.3g}.",
        lambda case: case.warming,
    ),
    Line(
        "The learning rate{lr} is too low for {optimizer}: at this pace it takes about "
        "{steps_needed:,.0f} steps to get anywhere.",
        lambda case: case.value("steps_needed") > 0,
    ),
    Line("The learning rate{lr} is too low for {optimizer}."),
)

REMEDIES = (
    Line(
        "Give the optimizer all parameters: configure_optimizers should pass self.parameters().",
        lambda case: case.value(_LEFT_OUT) > 0.5,
    ),
    Line(
        "Let the schedule last as long as training: total_steps=self.trainer."
        "estimated_stepping_batches; here it reached {lr_now:.3g} from {peak_lr:.3g}.",
        lambda case: case.decayed,
    ),
    Line(
        "Shorten the schedule's start: let the learning rate reach its full value within the first "
        "few per cent of the steps.",
        lambda case: case.warming,
    ),
    Line(
        "Use Adam, whose steps do not shrink with the gradient: "
        "torch.optim.Adam(model.parameters(), lr=1e-3).",
        lambda case: not case.adaptive and case.value("too_short") > 100,
    ),
    Line("Raise the learning rate: lr={higher_lr}."),
    Line(
        "Use Adam, whose steps do not shrink with the gradient: "
        "torch.optim.Adam(model.parameters(), lr=1e-3).",
        lambda case: not case.adaptive,
    ),
    Line(
        "See what becomes of the gradient before the step: a clip that is too tight or a loss "
        "multiplied by a tiny factor shortens every step of SGD.",
        lambda case: not case.adaptive,
    ),
)
