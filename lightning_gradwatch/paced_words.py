"""What is said of an overhead budget, in words and figures."""

from __future__ import annotations

from lightning_gradwatch.costs import WIDEST, Intervals
from lightning_gradwatch.pace import Pace
from lightning_gradwatch.settings import Settings


def what_was_done(pace: Pace, settings: Settings) -> str:
    """Say that the budget was exceeded, what was done about it, and what that brings.

    Args:
        pace: What was measured and decided.
        settings: What was asked for.
    """
    asked, now = settings.intervals, pace.intervals
    said = [
        f"GradWatch: it took {_percent(pace.measured or 0.0)} of the time that a training step "
        f"takes without it, and budget={pace.budget:g} allows {_percent(pace.budget)}."
    ]
    share = pace.costs.share(now)
    if now == asked:
        said.append("Wider intervals would not change it much, so they stay as they are.")
    else:
        said.append(
            f"From now on {_steps(now, settings)} (before: {_every(asked.norms)}, and "
            f"{_every(asked.looks)}), which takes about {_percent(share)}."
        )
    if share > pace.budget:
        said.append(f"That is above the budget: {_why(pace)}.")
    if pace.acts:
        said.append("Actions see every step, as before.")
    elif now.norms > asked.norms:
        said.append("Other steps are not judged, unless their loss is NaN or Inf on the CPU.")
    if now != asked:
        said.append(
            f"Without budget, every_n_steps={settings.every_n_steps} and "
            f"flow_every_n_steps={settings.flow_every_n_steps} hold again."
        )
    return " ".join(said)


def _why(pace: Pace) -> str:
    fixed = pace.costs.completed().fixed
    if fixed < pace.budget / 2:
        return f"no interval is made longer than {WIDEST} steps"
    why = ", since actions read the gradients of each" if pace.acts else ""
    return f"{_percent(fixed)} are taken at every step, however rarely one is recorded{why}"


def of_intervals(pace: Pace, settings: Settings) -> str:
    """Say in a report which intervals hold, and why."""
    return f"{_steps(pace.intervals, settings)}, for a budget of {_percent(pace.budget)}"


def not_applied(settings: Settings, count: int) -> str:
    """Say that the budget is not applied, since there are several processes."""
    return (
        f"GradWatch: budget={settings.budget:g} is not applied: there are {count} processes, and "
        "all of them have to look at the same steps. "
        f"every_n_steps={settings.every_n_steps} and "
        f"flow_every_n_steps={settings.flow_every_n_steps} hold; widen them yourself."
    )


def _steps(at: Intervals, settings: Settings) -> str:
    looks = (
        "backward passes and weight changes" if settings.flow_every_n_steps else "weight changes"
    )
    return f"norms are recorded {_every(at.norms)}, {looks} {_every(at.looks)}"


def _every(steps: int) -> str:
    return "at every step" if steps == 1 else f"at one step in {steps}"


def _percent(share: float) -> str:
    number = 100 * share
    return f"{number:.0f} %" if number >= 9.95 else f"{number:.2g} %"
