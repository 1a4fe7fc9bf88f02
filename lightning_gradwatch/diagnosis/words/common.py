"""Sentences that more than one kind has use for."""

from __future__ import annotations

from lightning_gradwatch.diagnosis.case import Line

LOWER_LR = Line("Lower the learning rate: lr={lower_lr}.")
#: What heals an explosion heals what it left behind.
OF_EXPLOSION = Line(
    "{explosion_remedy}",
    lambda case: case.follows("exploding") and bool(case.earlier["exploding"].remedies),
)
ADAM = Line(
    "Use Adam, whose steps do not grow with the gradient: torch.optim.Adam(model.parameters(), "
    "lr=1e-3).",
    lambda case: not case.adaptive,
)
NORMALISE = Line(
    "Normalise between layers: nn.BatchNorm1d(width) (or nn.LayerNorm) after each nn.Linear, "
    "nn.BatchNorm2d(channels) after each convolution.",
    lambda case: not case.normalised and not case.shallow,
)
DECAY = Line(
    "Let GradWatch lower the learning rate when it happens: GradWatch(actions=[DecayLR()])."
)
STANDARDISE_INPUTS = Line(
    "Standardise the inputs: x = (x - x.mean(0)) / x.std(0).",
    lambda case: case.unscaled_inputs,
)
INITIAL_WEIGHTS = Line(
    "Initialise so that the signal keeps its size: nn.init.kaiming_normal_(layer.weight, "
    "nonlinearity='relu') for ReLU, nn.init.xavier_normal_(layer.weight) for tanh; "
    "nn.init.zeros_(layer.bias)."
)
HE = "nn.init.kaiming_normal_(layer.weight, nonlinearity='relu'); nn.init.zeros_(layer.bias)"
XAVIER = "nn.init.xavier_normal_(layer.weight, gain=5 / 3)"
