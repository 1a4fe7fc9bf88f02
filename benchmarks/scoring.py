"""How a list of reports is scored against what was measured: plain counting.

Required codes that are reported are hits, the others misses; reported codes that are neither
required nor tolerated are false. Tolerated codes count neither way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.zoo.trace import Trace, Verdict

#: Progress from which a remedy counts as one that works.
WORKS = 0.7


@dataclass(frozen=True)
class Report:
    """What a detector said of a run.

    Attributes:
        codes: Code to the step at which it was first reported; alternatives as in `a|b`.
        advice: Code to keys of remedies, best first; None for one that cannot be tested.
    """

    codes: Mapping[str, int]
    advice: Mapping[str, Sequence[str | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """One scored case.

    Attributes:
        trace: The run.
        verdict: What was measured.
        codes: What was reported, alternatives resolved, to first step.
        advice: Keys of remedies of the first required code that was reported.
    """

    trace: Trace
    verdict: Verdict
    codes: Mapping[str, int]
    advice: tuple[str | None, ...]

    @property
    def hits(self) -> set[str]:
        """Required and reported."""
        return set(self.codes) & set(self.verdict.required)

    @property
    def misses(self) -> set[str]:
        """Required and not reported."""
        return set(self.verdict.required) - set(self.codes)

    @property
    def false(self) -> set[str]:
        """Reported, and neither required nor tolerated."""
        return set(self.codes) - set(self.verdict.required) - set(self.verdict.tolerated)

    @property
    def exact(self) -> bool:
        """Nothing missed and nothing false."""
        return not self.misses and not self.false

    @property
    def first_hit(self) -> int | None:
        """Step of the first required code that was reported."""
        return min((self.codes[code] for code in self.hits), default=None)

    @property
    def early(self) -> bool:
        """A right label before half of the run is over."""
        return self.first_hit is not None and self.first_hit < self.trace.steps / 2

    @property
    def works(self) -> set[str]:
        """Remedies that were measured to work."""
        return {key for key, reached in self.verdict.remedies.items() if reached >= WORKS}


@dataclass(frozen=True)
class Score:
    """A scored list.

    Attributes:
        outcomes: One by case, in order.
    """

    outcomes: tuple[Outcome, ...]

    @property
    def healthy(self) -> tuple[Outcome, ...]:
        """Cases in which nothing may be reported."""
        return tuple(o for o in self.outcomes if o.verdict.healthy)

    @property
    def faulty(self) -> tuple[Outcome, ...]:
        """Cases with something to report."""
        return tuple(o for o in self.outcomes if not o.verdict.healthy)

    @property
    def false_alarms(self) -> float:
        """Share of the healthy runs with any false code."""
        return _share(bool(o.false) for o in self.healthy)

    @property
    def right(self) -> float:
        """Share of the faulty runs with a right label."""
        return _share(bool(o.hits) for o in self.faulty)

    @property
    def exact(self) -> float:
        """Share of all runs with nothing missed and nothing false."""
        return _share(o.exact for o in self.outcomes)

    @property
    def early(self) -> float:
        """Share of the faulty runs with a right label before half of the run."""
        return _share(o.early for o in self.faulty)

    @property
    def median_step(self) -> float:
        """Median step of the first right label, where there is one; NaN without any."""
        steps = [o.first_hit for o in self.faulty if o.first_hit is not None]
        return float(median(steps)) if steps else float("nan")

    @property
    def counts(self) -> dict[str, tuple[int, int, int]]:
        """For each code seen anywhere: hits, false ones, misses."""
        hits = Counter(code for o in self.outcomes for code in o.hits)
        false = Counter(code for o in self.outcomes for code in o.false)
        misses = Counter(code for o in self.outcomes for code in o.misses)
        return {c: (hits[c], false[c], misses[c]) for c in sorted({*hits, *false, *misses})}

    @property
    def labels(self) -> tuple[str, ...]:
        """Codes that any run requires."""
        return tuple(code for code, (hit, _, missed) in self.counts.items() if hit + missed)

    def precision(self, code: str) -> float:
        """Hits over all that was reported; NaN if nothing was."""
        hit, false, _ = self.counts.get(code, (0, 0, 0))
        return hit / (hit + false) if hit + false else float("nan")

    def recall(self, code: str) -> float:
        """Hits over all that was required; NaN if nothing was."""
        hit, _, missed = self.counts.get(code, (0, 0, 0))
        return hit / (hit + missed) if hit + missed else float("nan")

    def f1(self, code: str) -> float:
        """Harmonic mean of the two; 0 without a hit."""
        return _f1(*self.counts.get(code, (0, 0, 0)))

    @property
    def micro_f1(self) -> float:
        """F1 of all codes counted together."""
        hits, false, misses = (sum(c[i] for c in self.counts.values()) for i in range(3))
        return _f1(hits, false, misses)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the codes that any run requires."""
        return sum(map(self.f1, self.labels)) / len(self.labels) if self.labels else float("nan")

    @property
    def curable(self) -> tuple[Outcome, ...]:
        """Faulty runs of which some remedy was measured to work."""
        return tuple(o for o in self.faulty if o.works)

    @property
    def first_remedy(self) -> float:
        """Share of the curable runs whose first remedy works; a missed run counts as none."""
        return _share(bool(o.advice) and o.advice[0] in o.works for o in self.curable)

    @property
    def any_remedy(self) -> float:
        """Share of the curable runs of which any listed remedy works."""
        return _share(bool(set(o.advice) & o.works) for o in self.curable)


def score(
    pairs: Iterable[tuple[Trace, Verdict]],
    report_fn: Callable[[Trace], Report | Mapping[str, int]],
) -> Score:
    """Score what a detector says of every run.

    Args:
        pairs: Runs and what was measured of them.
        report_fn: Returns the codes of a run with their first step, or a `Report`.
    """
    return Score(tuple(_outcome(trace, verdict, report_fn(trace)) for trace, verdict in pairs))


def resolve(codes: Mapping[str, int], verdict: Verdict) -> dict[str, int]:
    """Take a statement that cannot tell codes apart (`a|b`) for whichever is right.

    All that are required are credited; else one that is tolerated is chosen, else the first.
    """
    found: dict[str, int] = {}
    for code, step in codes.items():
        options = code.split("|")
        chosen = [option for option in options if option in verdict.required]
        chosen = chosen or [option for option in options if option in verdict.tolerated][:1]
        for one in chosen or options[:1]:
            found[one] = min(step, found.get(one, step))
    return found


def _outcome(trace: Trace, verdict: Verdict, said: Report | Mapping[str, int]) -> Outcome:
    report = said if isinstance(said, Report) else Report(said)
    codes = resolve(report.codes, verdict)
    right = [code for code in codes if code in verdict.required]
    first = min(right, key=codes.__getitem__, default="")
    return Outcome(trace, verdict, codes, tuple(report.advice.get(first, ())))


def _f1(hits: int, false: int, misses: int) -> float:
    total = 2 * hits + false + misses
    return 2 * hits / total if total else float("nan")


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else float("nan")
