"""What is said of `spike`."""

from __future__ import annotations

from lightning_gradwatch.diagnosis.case import Line

CAUSES = (
    Line("A batch unlike the others, or a sharp place of the loss; the run may recover by itself."),
)

REMEDIES = (
    Line("Look at the batches of these steps: outliers, wrong labels, lengths, duplicates."),
    Line(
        "If it comes back, cut it off: GradWatch(actions=[ClipGradNorm(max_norm={clip})]), five "
        "times the usual norm."
    ),
)
