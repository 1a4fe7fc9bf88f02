"""The run in a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.report.wording import count, number, places, when

if TYPE_CHECKING:
    from lightning_gradwatch.report.report import Report

#: A finding's code as the name of an illness.
TITLES = {
    "nonfinite": "NaN or Inf",
    "exploding": "exploding gradients",
    "vanishing": "vanishing gradients",
    "oscillating": "an oscillating loss",
    "stalled": "stalled weights",
    "dead_units": "dead units",
    "saturated": "saturated activations",
    "spike": "gradient spikes",
    "no_gradient": "parameters without a gradient",
}


def title(finding: Finding) -> str:
    """Return what a finding is called in a sentence; a code of the user's own is its own name."""
    return TITLES.get(finding.code, finding.code)


def verdict(report: Report) -> str:
    """Return what is wrong in a few words, or `healthy`."""
    if not report.steps and not report.findings:
        return "no optimizer step recorded, so there is nothing to judge"
    if "gradients" in report.environment and not report.findings:
        return "gradients could not be read, so there is nothing to judge"
    if not report.parameters and not report.findings:
        return "no trainable parameter to watch"
    problems = [f for f in report.findings if f.severity >= Severity.WARNING]
    if not problems and report.idle:
        return report.idle
    if not problems:
        notes = len(report.findings)
        return "healthy" + (f", with {count(notes, 'note')}" if notes else "")
    names = list(dict.fromkeys(title(finding) for finding in problems))
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def idle(largest: npt.NDArray[np.floating[Any]], nonfinite: npt.NDArray[np.int64]) -> str:
    """Return why nothing can have been learnt: no layer has ever had a gradient that moves it.

    Args:
        largest: Largest finite norm of each layer over the run, shape (L,); -Inf without any.
        nonfinite: Steps at which each layer's gradient held NaN or Inf, shape (L,).

    Returns:
        A few words; empty if any layer has had a finite gradient other than zero.

    Example:
        >>> idle(np.array([0.0, -np.inf]), np.array([0, 0]))
        'every gradient is exactly zero'
    """
    if not len(largest) or (largest > 0).any():
        return ""
    if nonfinite.any():
        return "every gradient is NaN or Inf"
    if (largest == 0).any():
        return "every gradient is exactly zero"
    return "no layer has had a gradient"


def scope(report: Report) -> str:
    """Return how much was watched: `1,000 steps · 10 epochs · 20 parameters in 10 layers`."""
    passes = report.config.get("passes")  # before training
    parts = [count(report.steps, "step")] if passes is None else ["before the first step"]
    if report.epochs:
        parts.append(count(report.epochs, "epoch"))
    parts.append(f"{count(report.parameters, 'parameter')} in {count(report.layers, 'layer')}")
    if passes is not None and report.last_loss == report.last_loss:
        parts.append(f"loss {_loss(report.last_loss)}")
    elif report.first_loss == report.first_loss and report.steps > 1:
        parts.append(f"loss {_loss(report.first_loss)} → {_loss(report.last_loss)}")
    return " · ".join(parts)


def _loss(value: float) -> str:
    return "NaN" if value != value else number(value)


def where(finding: Finding, shown: int = 3) -> str:
    """Return at which steps and in which layers."""
    return f"{when(finding.first_step, finding.last_step, finding.count)} · " + places(
        finding.layers, shown
    )


def since(finding: Finding, shown: int = 3) -> str:
    """Return from which step on and in which layers, of a finding that may go on.

    Example:
        >>> from lightning_gradwatch.finding import Severity
        >>> since(Finding("vanishing", Severity.ERROR, ("a",), 5, 1005, 1001))
        'since step 5, 1,001 times by step 1,005 · a'
    """
    if finding.count == 1:
        told = f"first at step {finding.first_step:,}"
    else:
        told = f"since step {finding.first_step:,}, {finding.count:,} times by step "
        told += f"{finding.last_step:,}"
    return f"{told} · {places(finding.layers, shown)}"


def headline(report: Report) -> str:
    """Return one line for logs: the verdict, the worst finding, the first thing to try."""
    steps = count(report.steps, "step")
    if not any(finding.severity >= Severity.WARNING for finding in report.findings):
        return f"GradWatch: {report.verdict}" + (f" ({steps})" if report.steps else "")
    worst = report.findings[0]
    text = f"GradWatch: {report.verdict} ({worst.severity.name} at {where(worst, 1)})"
    if worst.summary:
        text += f": {one_line(worst.summary)}"
    if worst.remedies:
        text += f" Try: {one_line(worst.remedies[0])}"
    return text


def one_line(text: str) -> str:
    """Return `text` without line breaks, ended as a sentence."""
    flat = " ".join(text.split())
    return flat if flat.endswith((".", "!", "?")) else flat + "."
