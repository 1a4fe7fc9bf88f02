"""`vanishing`: the error signal dies on its way back, through depth or through time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lightning_gradwatch.detectors.depth import Before, DepthReading, read_depth
from lightning_gradwatch.detectors.gains import Drain, find_drain
from lightning_gradwatch.detectors.sentences import amount, names
from lightning_gradwatch.detectors.time_profile import TimeReading, read_time
from lightning_gradwatch.detectors.verdict import KEPT, Verdict
from lightning_gradwatch.errors import check_int, check_number
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.sample import Floats, Sample

#: Measured steps judged more strictly: networks that start on a plateau often leave it by then.
_YOUNG = KEPT
#: How far below its limit a time profile leaves no doubt, so that one look is enough.
_HOPELESS = 1e-5
#: How much stricter.
_YOUNG_FACTOR = 0.25


class VanishingGradient:
    """Finds early layers, or early time steps, that do not learn because no gradient reaches them.

    Depth. Judged on the steps whose weight change is measured, by two numbers that know no scale:
    the learning share (how much of the promised decrease of the loss goes through the early half
    of the layers) and the elasticity (weight norm x gradient norm / loss) of those layers. Both
    must be far too small: layers with a tiny learning rate keep their elasticity, a converged model
    keeps its share. While the share is still growing, as behind a zero-initialised gate or head,
    nothing is said. A network of two layers is only judged by gradients of exactly zero.

    Time. For `nn.RNN`, `nn.LSTM` and `nn.GRU`, by the gradient with respect to their input, first
    tenth of the time steps over the last tenth. Weight gradients do not show this. Many recurrent
    networks start out forgetful and learn to remember, so that only a profile which is still flat
    after the first ten looks, for three looks in a row and not on its way up, counts.

    Args:
        ratio: Learning share of the early half of the layers that counts as none, 0 < ratio < 1.
        elasticity: Elasticity that counts as none, > 0 (healthy layers: about 1).
        time_ratio: Gradient at the first tenth of the time steps over the last tenth that counts as
            none, 0 < time_ratio < 1.
        patience: Measured steps before the first verdict on depth, >= 1.
        sustained: Steps after which a symptom that does not go away becomes an ERROR, >= 1.
        min_norm: A fixed limit, > 0: every step at which some layer's gradient norm (before
            clipping) is below it is reported too. None: no fixed limit, since a small norm alone
            is no illness: converged models and scaled losses have it.

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is out of range.

    Example:
        >>> from lightning_gradwatch.testing import make_sample, replay
        >>> gradients = [1e-12, 1e-9, 1e-6, 1e-3, 1.0]  # from the first layer to the last
        >>> samples = [make_sample(t, gradients, weight_norm=[5.0] * 5, loss=2.3) for t in range(9)]
        >>> samples = [  # what a step did arrives with the next one
        ...     type(s)(**{**s.__dict__, "update": samples[max(s.step - 1, 0)].update})
        ...     for s in samples
        ... ]
        >>> print(replay(VanishingGradient(), samples)[0].summary)
        The error signal dies on its way back: layer0 receives 1e-12 of the gradient that layer4 \
does (×0.001 per layer over 5 layers).

    References:
        - Hochreiter (1991), Untersuchungen zu dynamischen neuronalen Netzen
        - Glorot and Bengio (2010), Understanding the difficulty of training deep feedforward
          neural networks
        - Pascanu et al. (2013), On the difficulty of training recurrent neural networks
    """

    def __init__(
        self,
        ratio: float = 1e-3,
        elasticity: float = 1e-2,
        time_ratio: float = 1e-4,
        patience: int = 5,
        sustained: int = 100,
        min_norm: float | None = None,
    ) -> None:
        self.ratio = check_number("ratio", ratio, above=0, below=1)
        self.elasticity = check_number("elasticity", elasticity, above=0)
        self.time_ratio = check_number("time_ratio", time_ratio, above=0, below=1)
        self.patience = check_int("patience", patience, at_least=1)
        self.sustained = check_int("sustained", sustained, at_least=1)
        self.min_norm = None if min_norm is None else check_number("min_norm", min_norm, above=0)
        self.reset()

    def reset(self) -> None:
        """Forget the run."""
        self._before: dict[int, Before] = {}
        self._depth: dict[int, Verdict] = {}
        self._drains: dict[int, Drain] = {}
        self._weight: dict[int, float] = {}  # norm of all matrices when first measured
        self._time: dict[tuple[int, str], Verdict] = {}

    def update(self, sample: Sample) -> Iterator[Finding]:
        """Look at the aftermath and the time profiles that the sample carries, if any."""
        if sample.update is not None:
            self._judge_depth(sample)
        if sample.amp_overflow:
            return
        self._before[sample.optimizer] = Before.of(sample)
        if sample.flow is not None:
            self._judge_time(sample)
            drain = find_drain(sample, sample.flow.modules) if sample.flow.modules else None
            if drain is not None:
                self._drains[sample.optimizer] = drain
        verdicts = [self._depth.get(sample.optimizer)]
        verdicts += [v for (index, _), v in self._time.items() if index == sample.optimizer]
        found = [v.at(sample.step, self.sustained) for v in verdicts if v is not None]
        yield from (finding for finding in found if finding is not None)
        if self.min_norm is not None and not any(found):
            yield from self._below_limit(sample, self.min_norm)

    def _below_limit(self, sample: Sample, limit: float) -> Iterator[Finding]:
        low = sample.layer_has_grad & (sample.layer_grad_norm < limit)
        if not low.any():
            return
        layers = tuple(
            name for name, is_low in zip(sample.layout.layers, low, strict=True) if is_low
        )
        norm = float(sample.layer_grad_norm[low].min())
        evidence = {"norm": norm, "min_norm": limit, "starved_layers": float(len(layers))}
        if sample.optimizer:
            evidence["optimizer"] = float(sample.optimizer)
        summary = (
            f"The gradient norm of {names(layers)} is down to {amount(norm)}, below the limit of "
            f"{amount(limit)} that was set."
        )
        step = sample.step
        yield Finding("vanishing", Severity.WARNING, layers, step, step, 1, evidence, summary)

    # ------------------------------------------------------------------ depth

    def _judge_depth(self, sample: Sample) -> None:
        update = sample.update
        before = None if update is None else self._before.get(update.optimizer)
        reading = None if before is None else read_depth(before, sample)
        if update is None or reading is None:
            return
        self._weight.setdefault(update.optimizer, reading.weight)
        verdict = self._depth.setdefault(update.optimizer, Verdict())
        verdict.add([reading.share, reading.early_elasticity, reading.early_gradient])
        sick = verdict.count >= self.patience and self._is_sick(verdict, len(reading.layers))
        found = self._depth_finding(reading, update.optimizer) if sick else None
        verdict.settle(found, sample.step)

    def _is_sick(self, verdict: Verdict, layers: int) -> bool:
        shares, elasticities, gradients = np.array(verdict.readings).T
        if layers < 3:
            return not gradients[-self.patience :].any()
        limit = self.ratio * (_YOUNG_FACTOR if verdict.count <= _YOUNG else 1.0)
        # A median of three, so that one odd batch does not raise the alarm; the latest as well,
        # because measured steps soon lie far apart.
        too_small = all(
            max(values[-1], np.median(values[-3:])) < bound
            for values, bound in ((shares, limit), (elasticities, self.elasticity))
        )
        return too_small and (verdict.since is not None or not _is_growing(gradients))

    def _depth_finding(self, reading: DepthReading, optimizer: int) -> Finding:
        n = len(reading.layers)
        starved = [
            name
            for name, elasticity in zip(reading.layers, reading.elasticity, strict=True)
            if elasticity < self.elasticity
        ]
        first, last = float(reading.norm[0]), float(reading.norm[-1])
        evidence = {
            "learning_share": reading.share,
            "early_elasticity": reading.early_elasticity,
            "layers": float(n),
            "starved_layers": float(len(starved)),
            "first_norm": first,
            "last_norm": last,
        }
        if self._weight.get(optimizer, 0.0) > 0:
            evidence["weights_left"] = reading.weight / self._weight[optimizer]
        ratio = first / last if last > 0 else math.nan
        if reading.early_gradient == 0.0:
            zero = [x for x, norm in zip(reading.layers, reading.norm, strict=True) if norm == 0]
            zero = zero or starved
            evidence["zero_layers"] = float(len(zero))
            verb = "receives" if len(zero) == 1 else "receive"
            summary = (
                f"The error signal does not arrive: {names(zero)} {verb} a gradient of exactly 0, "
                f"while {reading.layers[-1]} receives {amount(last)}."
            )
        elif ratio < 0.01:
            factor = ratio ** (1 / (n - 1)) if ratio > 0 else 0.0
            evidence |= {"first_over_last": ratio, "factor_per_layer": factor}
            drain = self._drains.get(optimizer)
            so = ""
            if drain is not None:
                evidence |= {"module_gain": drain.gain, "modules": float(drain.count)}
                so = f"{drain.words}, so that "
            summary = (
                f"The error signal dies on its way back: {so}{reading.layers[0]} receives "
                f"{amount(ratio)} of the gradient that {reading.layers[-1]} does "
                f"(×{factor:.2g} per layer over {n} layers)."
            )
        else:
            summary = (
                f"Almost no error signal reaches the weights: {names(starved)}, the early half of "
                f"{n} layers among them; that half makes {amount(reading.share)} of the progress "
                "of a step."
            )
        if optimizer:
            evidence["optimizer"] = float(optimizer)
        return Finding("vanishing", Severity.WARNING, tuple(starved), 0, 0, 1, evidence, summary)

    # ------------------------------------------------------------------ time

    def _judge_time(self, sample: Sample) -> None:
        for profile in sample.flow.time_profiles if sample.flow is not None else ():
            reading = read_time(profile)
            if reading is None:
                continue
            verdict = self._time.setdefault((sample.optimizer, profile.module), Verdict())
            earlier = [ratio for (ratio,) in verdict.readings]
            verdict.add([reading.ratio])
            sick = verdict.count > _YOUNG and reading.ratio < self.time_ratio
            if sick and reading.ratio > self.time_ratio * _HOPELESS:
                # A plateau on the way to remembering looks like this for a look or two.
                sick = verdict.count > _YOUNG + 2 and max(earlier[-2:]) < self.time_ratio
            # The looks are far apart by now: a rise by a decade since the last is recovery.
            known = verdict.since is not None
            rising = not known and bool(earlier) and reading.ratio > 10 * max(earlier[-1], 1e-300)
            found = self._time_finding(reading, sample.optimizer) if sick and not rising else None
            verdict.settle(found, sample.step)

    def _time_finding(self, reading: TimeReading, optimizer: int) -> Finding:
        tenth = max(1, reading.time_steps // 10)
        evidence = {
            "time_ratio": reading.ratio,
            "factor_per_time_step": reading.per_step,
            "time_steps": float(reading.time_steps),
            "time_steps_compared": float(tenth),
        }
        if optimizer:
            evidence["optimizer"] = float(optimizer)
        some = f"the first {tenth} of {reading.time_steps} time steps"
        if reading.ratio == 0.0:
            summary = f"The error signal does not arrive: in {reading.module}, {some} receive 0."
        else:
            summary = (
                f"The error signal dies on its way back through time: in {reading.module}, {some} "
                f"receive {amount(reading.ratio)} of the gradient that the last {tenth} do "
                f"(×{reading.per_step:.2g} per time step)."
            )
        return Finding("vanishing", Severity.WARNING, (reading.module,), 0, 0, 1, evidence, summary)

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen, as plain Python values."""
        return {
            "before": {str(k): v.to_dict() for k, v in self._before.items()},
            "depth": {str(k): v.to_dict() for k, v in self._depth.items()},
            "drains": {str(k): v.to_dict() for k, v in self._drains.items()},
            "weight": {str(k): v for k, v in self._weight.items()},
            "time": [[index, name, v.to_dict()] for (index, name), v in self._time.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._before = {int(k): Before.from_dict(v) for k, v in state["before"].items()}
        self._depth = {int(k): Verdict.from_dict(v) for k, v in state["depth"].items()}
        self._drains = {int(k): Drain.from_dict(v) for k, v in state["drains"].items()}
        self._weight = {int(k): float(v) for k, v in state["weight"].items()}
        self._time = {(int(i), str(n)): Verdict.from_dict(v) for i, n, v in state["time"]}


def _is_growing(gradients: Floats) -> bool:
    """Whether the early layers' part of the gradient has doubled over the readings and still grows.

    Behind weights that start at zero it does, step by step, and the network is healthy.
    """
    present = gradients[gradients > 0]
    if len(present) < 2:  # at first there may be none at all
        return bool(len(present)) and gradients[0] == 0.0
    some = min(3, len(present) // 2)
    doubled = present[-2:].min() >= 2.0 * present[0]
    return bool(
        doubled and np.median(present[-some:]) >= 1.25 * np.median(present[-2 * some : -some])
    )
