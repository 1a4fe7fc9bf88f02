"""`exploding`: gradients grow out of their own range, and training diverges."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lightning_gradwatch.detectors.depth import Before, read_depth, step_length
from lightning_gradwatch.detectors.forward import read_forward
from lightning_gradwatch.detectors.own_range import OwnRange
from lightning_gradwatch.detectors.sentences import amount, heaviest
from lightning_gradwatch.errors import check_int, check_number
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.sample import Sample

#: Measured steps on which the initial weights are judged.
_INITIAL = 3
#: By how much the early half must exceed the late one to speak of growth through depth.
_THROUGH_DEPTH = 5.0
#: Output over input from which an untrained forward pass blows up (sound ones: up to 15), and the
#: output force that such an output has whatever the loss.
_THROUGH_FORWARD = 100.0
_BLIND = (0.3, 4.0)
#: Hard batches in a row that are one thing more than chance, in a run that has come back from some.
_RARE = 3
#: Out-of-range steps after which the new level is taken for the run's own.
_ACCEPT = 100


class ExplodingGradient:
    """Finds gradients that outgrow the run's own range while the loss rises with them.

    Everything is relative to the run itself, so that no unit of the loss matters. Any of these is
    an explosion, told from the first step on:

    - norm and loss are far above their own level for two steps in a row; within the first ten
      steps, when there is no level yet, the steps must also have been too long for the loss;
    - one such step, if it follows a step many times longer than the loss allows;
    - a loss or gradient that ends in Inf or NaN right after either of these;
    - at initialisation, gradients that grow enormously on their way back, through depth or time;
    - at initialisation, outputs hundreds of times larger than the inputs, and a loss to match.

    A single step out of range, from which the run recovers, is a `spike` and not an explosion.

    Args:
        max_norm: A fixed limit, > 0: every step whose global gradient norm (before clipping) is
            above it is reported too, whatever the run's own range. None: no fixed limit.
        factor: How far above its own level the gradient norm is out of range, > 1.
        loss_factor: How far above the level at which it began the loss is out of range, > 1.
        step_length: Promised decrease of the loss in one step, over the loss, that is far too long
            (a sound step is below 1), > 1.
        elasticity: Weight norm x gradient norm / loss of the early layers that is too much at
            initialisation, > 1 (healthy layers: 0.1 to 300).
        window: Steps that make up the run's own level, >= 10.

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is out of range.

    Example:
        >>> from lightning_gradwatch.testing import make_sample, replay
        >>> calm = [make_sample(t, [1.0], loss=0.5) for t in range(20)]
        >>> storm = [make_sample(20 + t, [40.0 * 9**t], loss=50.0 * 9**t) for t in range(3)]
        >>> for finding in replay(ExplodingGradient(), calm + storm)[:1]:
        ...     print(finding.first_step, finding.summary)
        21 The gradient explodes: its norm is 360, 360 times the run's own level, and the loss has \
risen to 450, 900 times the level it began at.

    References:
        - Pascanu et al. (2013), On the difficulty of training recurrent neural networks
        - Philipp et al. (2018), The exploding gradient problem demystified
    """

    def __init__(
        self,
        max_norm: float | None = None,
        factor: float = 30.0,
        loss_factor: float = 10.0,
        step_length: float = 30.0,
        elasticity: float = 1e3,
        window: int = 64,
    ) -> None:
        self.max_norm = None if max_norm is None else check_number("max_norm", max_norm, above=0)
        self.factor = check_number("factor", factor, above=1)
        self.loss_factor = check_number("loss_factor", loss_factor, above=1)
        self.step_length = check_number("step_length", step_length, above=1)
        self.elasticity = check_number("elasticity", elasticity, above=1)
        self.window = check_int("window", window, at_least=10)
        self.reset()

    def reset(self) -> None:
        """Forget the run."""
        self._tracks: dict[int, OwnRange] = {}

    def update(self, sample: Sample) -> Iterator[Finding]:
        """Compare the step with the run so far, then make it part of it."""
        initial = self._take_aftermath(sample)
        if initial is not None:
            yield initial
        if sample.amp_overflow or not sample.has_grad.any():
            return
        track = self._track(sample.optimizer)
        if initial is None and not track.looked and sample.flow is not None:
            track.looked = True
            initial = self._blown_up(sample)
            if initial is not None:
                yield initial
        # The last window of an epoch may hold fewer micro-batches: its gradient is smaller by that.
        norm = sample.global_norm / (sample.accumulated if sample.accumulated > 0 else 1.0)
        track.signed |= sample.loss < 0
        loss = math.nan if track.signed and math.isfinite(sample.loss) else sample.loss
        if not math.isfinite(norm) or math.isinf(loss):
            if self._explains_nonfinite(track):
                yield self._overflow(sample, track)
            track.active, track.streak = False, 0
        elif norm > 0:
            track.late_norms.push(norm)
            track.late_losses.push(loss)
            hot = track.is_outside(norm, loss, self.factor, self.loss_factor)
            track.returned += track.streak > 0 and not hot
            track.streak = track.streak + 1 if hot else 0
            if track.streak == 1:
                track.onset_length = track.latest_length
            track.active = hot and (track.active or self._is_explosion(track, norm, loss))
            if track.active and initial is None:
                yield self._growth(sample, track, norm, loss)
            if not hot or track.streak > _ACCEPT:
                track.learn(norm, loss)
            track.note_rate(loss, sample.lr)
            track.samples += 1
        if self.max_norm is not None and norm > self.max_norm and not track.active:
            yield self._above_limit(sample)
        track.norm, track.loss, track.before = norm, loss, Before.of(sample)

    def _track(self, optimizer: int) -> OwnRange:
        return self._tracks.setdefault(optimizer, OwnRange(self.window))

    # ------------------------------------------------------------------ judging

    def _is_explosion(self, track: OwnRange, norm: float, loss: float) -> bool:
        too_long = track.latest_length >= self.step_length and track.is_rising(norm, loss)
        return too_long or track.streak >= 2 + min(track.returned, _RARE)

    def _explains_nonfinite(self, track: OwnRange) -> bool:
        """Whether growth led up to the first non-finite step."""
        if not math.isfinite(track.norm):
            return False
        return track.active or track.streak > 0 or track.latest_length >= self.step_length

    def _take_aftermath(self, sample: Sample) -> Finding | None:
        """Learn how long the last measured step was, and how steep the model is at its start."""
        update = sample.update
        if update is None:
            return None
        track = self._track(update.optimizer)
        before = track.before
        if before is None or update.step != before.step:
            return None
        track.length, track.length_of = step_length(before, update), update.step
        if track.readings >= _INITIAL:
            return None
        track.readings += 1
        reading = read_depth(before, sample)
        if reading is None:
            return None
        steep = reading.early_elasticity
        growth = steep / reading.late_elasticity if reading.late_elasticity > 0 else math.inf
        track.steep = (
            track.steep + 1 if steep >= self.elasticity and growth >= _THROUGH_DEPTH else 0
        )
        at_once = steep >= self.elasticity**2 and growth >= self.elasticity
        if not (track.steep >= 2 or at_once):
            return None
        evidence = {
            "early_elasticity": steep,
            "late_elasticity": reading.late_elasticity,
            "layers": float(len(reading.layers)),
            "step": float(before.step),
        }
        summary = (
            f"The gradient explodes on its way back: at step {before.step} a change of 1 % in the "
            f"early weights ({reading.layers[0]} first) would have changed the loss by "
            f"{amount(steep)} %, against {amount(reading.late_elasticity)} % in the last layers."
        )
        return self._finding(sample, reading.layers[: len(reading.layers) // 2], evidence, summary)

    def _blown_up(self, sample: Sample) -> Finding | None:
        """Find outputs that are far too large before anything was learnt."""
        reading = read_forward(sample)
        if reading is None or reading.growth < _THROUGH_FORWARD:
            return None
        if not _BLIND[0] <= reading.force <= _BLIND[1]:
            return None  # trained: it is this large for the sake of its targets
        evidence = {
            "forward_growth": reading.growth,
            "output": reading.output,
            "loss": sample.loss,
            "step": float(sample.step),
        }
        summary = (
            f"The signal explodes on its way forward, and the gradient with it: at step "
            f"{sample.step} what {reading.layer} puts out is {amount(reading.growth)} times as "
            f"large as the inputs, and the loss is {amount(sample.loss)}."
        )
        there = sample.layer_has_grad
        layers = tuple(n for n, has in zip(sample.layout.layers, there, strict=True) if has)
        return self._finding(sample, layers, evidence, summary)

    # ------------------------------------------------------------------ telling

    def _growth(self, sample: Sample, track: OwnRange, norm: float, loss: float) -> Finding:
        level = 10**track.calm
        evidence = {"norm": norm, "level": level, "norm_growth": norm / level}
        summary = (
            f"The gradient explodes: its norm is {amount(norm)}, {amount(norm / level)} times the "
            "run's own level"
        )
        if not math.isnan(loss):
            start = 10**track.start
            evidence |= {"loss": loss, "loss_at_start": start, "loss_growth": loss / start}
            summary += (
                f", and the loss has risen to {amount(loss)}, {amount(loss / start)} times the "
                "level it began at"
            )
        elif sample.loss < 0:
            evidence["loss"] = sample.loss
        evidence |= self._length(track) | self._rate(track)
        return self._finding(sample, heaviest(sample), evidence, summary + ".")

    def _overflow(self, sample: Sample, track: OwnRange) -> Finding:
        evidence = {"norm": track.norm} | self._length(track) | self._rate(track)
        if sample.loss < 0 or track.loss < 0:
            evidence["loss"] = sample.loss if sample.loss < 0 else track.loss
        before = "the step before"
        summary = (
            f"The gradient explodes beyond what numbers can hold: its norm was {amount(track.norm)}"
            f" {before}"
        )
        if len(track.norms) and track.streak:
            evidence |= {"level": 10**track.calm, "norm_growth": track.norm / 10**track.calm}
            summary += f", {amount(evidence['norm_growth'])} times the run's own level"
        if "step_length" in evidence:
            summary += (
                f", and that step promised to lower the loss by {amount(evidence['step_length'])} "
                "times its value"
            )
        layers = () if track.before is None else sample.layout.layers
        return self._finding(sample, layers, evidence, summary + ".")

    def _above_limit(self, sample: Sample) -> Finding:
        assert self.max_norm is not None
        evidence = {"norm": sample.global_norm, "max_norm": self.max_norm}
        summary = (
            f"The gradient norm is {amount(sample.global_norm)}, above the limit of "
            f"{amount(self.max_norm)} that was set."
        )
        return self._finding(sample, heaviest(sample), evidence, summary)

    @staticmethod
    def _length(track: OwnRange) -> dict[str, float]:
        length = track.onset_length if track.streak else track.latest_length
        return {"step_length": length} if length > 1 else {}

    @staticmethod
    def _rate(track: OwnRange) -> dict[str, float]:
        if not (track.calm_lr > 0 and math.isfinite(track.peak_lr)):
            return {}
        calm, peak = track.calm_lr, track.peak_lr
        return {"lr_now": peak, "lr_calm": calm, "lr_growth": peak / calm}

    @staticmethod
    def _finding(
        sample: Sample, layers: tuple[str, ...], evidence: dict[str, float], summary: str
    ) -> Finding:
        if sample.optimizer:
            evidence["optimizer"] = float(sample.optimizer)
        step = sample.step
        return Finding("exploding", Severity.ERROR, layers, step, step, 1, evidence, summary)

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen, as plain Python values."""
        return {str(index): track.to_dict() for index, track in self._tracks.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._tracks = {int(k): OwnRange.from_dict(v, self.window) for k, v in state.items()}
