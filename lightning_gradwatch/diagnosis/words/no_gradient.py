"""What is said of `no_gradient`."""

from __future__ import annotations

from lightning_gradwatch.diagnosis.case import Line

CAUSES = (
    Line(
        "They take no part in the loss: never called in forward, cut off by detach(), no_grad() or "
        "argmax, or given to no optimizer."
    ),
)

REMEDIES = (
    Line(
        "Use them in forward, or say that they are not to be trained: "
        "parameter.requires_grad_(False)."
    ),
    Line("See that configure_optimizers passes self.parameters(), all of them."),
)
