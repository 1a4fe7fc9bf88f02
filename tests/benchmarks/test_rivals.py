"""Every rival's rule, on both sides of its published threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.rivals import RULES, autotrainer, deepdiagnosis, sagemaker, thresholds
from benchmarks.rivals.rule import NOT_FINITE
from benchmarks.rivals.seen import Seen
from benchmarks.rivals.tuning import tune
from benchmarks.zoo.trace import Trace
from tests.benchmarks.traces import NAN, activation, trace, verdict, weight

#: Accuracy of a run that never converges, but is not stuck.
POOR = lambda step: 0.1 + 0.002 * step  # noqa: E731
#: Accuracy of one that is stuck, too.
STUCK = lambda step: 0.1  # noqa: E731


def pair(first: float, last: float, **fields: float) -> list:
    return [weight("a.weight", first, **fields), weight("b.weight", last, **fields)]


def noise(step: int) -> float:
    """NaN from step 57 on."""
    return NAN if step >= 57 else 1.0 / (1 + step)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_healthy_run_and_nan(rule) -> None:
    acts = [activation(), activation("t", "Tanh"), activation("s", "Sigmoid")]
    assert rule.report(trace(pair(1.0, 1.0), acts)) == {}
    found = rule.report(trace(pair(1.0, 1.0), acts, loss=noise))
    assert set(found) - {"stalled"} == {NOT_FINITE}
    assert 60 <= found[NOT_FINITE] <= 140  # AUTOTRAINER looks at every third epoch


class TestThresholds:
    @pytest.mark.parametrize(
        ("norm", "codes"),
        [(0.9e-6, {"vanishing"}), (1.1e-6, set()), (99.0, set()), (101.0, {"exploding"})],
    )
    def test_limits(self, norm: float, codes: set[str]) -> None:
        run = trace([weight("a.weight", norm), weight("b.weight", 1.0)])
        assert set(thresholds.RULE.report(run)) == codes

    def test_layer_norm_joins_weight_and_bias(self) -> None:
        run = trace([weight("a.weight", 80.0), weight("a.bias", 80.0)])
        assert thresholds.RULE.report(run) == {"exploding": 0}
        apart = trace([weight("a.weight", 80.0), weight("b.bias", 80.0)])
        assert thresholds.RULE.report(apart) == {}

    def test_no_gradient_is_not_a_small_one(self) -> None:
        assert thresholds.RULE.report(trace([weight(norm=NAN)])) == {}


class TestSageMaker:
    @pytest.mark.parametrize(("mean", "hit"), [(0.9e-7, True), (1.1e-7, False)])
    def test_vanishing(self, mean: float, hit: bool) -> None:
        run = trace([weight("a.bias", grad_mean_abs=mean)])
        assert ("vanishing" in sagemaker.CORE.report(run)) is hit

    @pytest.mark.parametrize(("share", "hit"), [(0.51, True), (0.5, False)])
    def test_dead_relu(self, share: float, hit: bool) -> None:
        run = trace(activations=[activation(units_inactive=share)])
        assert ("dead_units" in sagemaker.CORE.report(run)) is hit

    @pytest.mark.parametrize(
        ("kind", "low", "high", "share", "hit"),
        [
            ("Tanh", -1.0, 9.6, 0.6, True),
            ("Tanh", -9.6, 1.0, 0.6, True),
            ("Tanh", -9.4, 9.4, 0.6, False),
            ("Tanh", -9.6, 1.0, 0.4, False),
            ("Sigmoid", -22.0, 16.0, 0.6, False),
            ("Sigmoid", -24.0, 16.0, 0.6, True),
            ("Sigmoid", -1.0, 17.1, 0.6, True),
            ("ReLU", -99.0, 99.0, 0.9, False),
        ],
    )
    def test_saturated(self, kind: str, low: float, high: float, share: float, hit: bool) -> None:
        act = activation(kind=kind, input_min=low, input_max=high, input_beyond_5=share)
        assert ("saturated" in sagemaker.CORE.report(trace(activations=[act]))) is hit

    @pytest.mark.parametrize(
        ("ratio", "code"),
        [(10.1, "exploding|oscillating"), (9.9, ""), (1.1e-8, ""), (0.9e-8, "stalled|vanishing")],
    )
    def test_update_ratio(self, ratio: float, code: str) -> None:
        run = trace([weight(update_ratio=ratio)])
        assert set(sagemaker.ALL.report(run)) == ({code} if code else set())
        assert sagemaker.CORE.report(run) == {}

    def test_frozen_parameters_do_not_count_as_still(self) -> None:
        run = trace([weight(), weight("frozen.weight", NAN, update_ratio=0.0)])
        assert sagemaker.ALL.report(run) == {}

    @pytest.mark.parametrize(("fall", "hit"), [(0.0009, True), (0.0011, False)])
    def test_loss_not_decreasing(self, fall: float, hit: bool) -> None:
        run = trace(loss=lambda step: (1 - fall) ** (step // 10))
        assert sagemaker.ALL.report(run) == ({"stalled": 10} if hit else {})


class TestAutoTrainer:
    @pytest.mark.parametrize(
        ("first", "last", "code"),
        [
            (0.9e-4, 0.1, "vanishing"),
            (1.1e-4, 0.2, ""),  # small beside the last one, but not small
            (0.9e-4, 0.08, ""),  # small, but not beside the last one
            (71.0, 1.0, "exploding"),
            (69.0, 1.0, ""),
        ],
    )
    def test_gradients(self, first: float, last: float, code: str) -> None:
        found = autotrainer.RULE.report(trace(pair(first, last), accuracy=POOR))
        assert set(found) == ({code} if code else set())

    def test_only_reported_of_runs_that_fail(self) -> None:
        sick = pair(0.9e-6, 1.0)
        assert autotrainer.RULE.report(trace(sick)) == {"vanishing": 75}
        good = trace(sick, accuracy=lambda step: 0.75 + step / 1000)
        assert autotrainer.RULE.report(good) == {}

    @pytest.mark.parametrize(("zero", "codes"), [(0.7, {"dead_units"}), (0.69, set())])
    def test_dying_relu(self, zero: float, codes: set[str]) -> None:
        run = trace(pair(1.0, 1.0, grad_zero=zero), accuracy=POOR)
        assert set(autotrainer.RULE.report(run)) == codes

    def test_one_problem_in_a_fixed_order(self) -> None:
        run = trace(pair(99.0, 1.0, grad_zero=0.8), accuracy=STUCK)
        assert set(autotrainer.RULE.report(run)) == {"dead_units"}

    @pytest.mark.parametrize(("loss", "codes"), [(1001.0, {"exploding"}), (999.0, {"stalled"})])
    def test_large_loss(self, loss: float, codes: set[str]) -> None:
        found = autotrainer.RULE.report(trace(loss=lambda step: loss, accuracy=STUCK))
        assert set(found) == codes

    @pytest.mark.parametrize(("rise", "codes"), [(0.009, {"stalled"}), (0.011, set())])
    def test_slow(self, rise: float, codes: set[str]) -> None:
        found = autotrainer.RULE.report(trace(accuracy=lambda step: 0.1 + rise * (step // 20)))
        assert set(found) == codes

    @pytest.mark.parametrize(("swing", "codes"), [(0.031, {"oscillating"}), (0.029, set())])
    def test_oscillating(self, swing: float, codes: set[str]) -> None:
        def accuracy(step: int) -> float:
            return 0.8 + (swing if step // 20 % 2 else 0.0)

        assert set(autotrainer.RULE.report(trace(accuracy=accuracy))) == codes

    @pytest.mark.parametrize(("low", "codes"), [(0.4, {"vanishing"}), (0.2, set())])
    def test_regression_by_share_of_loss_gone(self, low: float, codes: set[str]) -> None:
        """Below 30 % of the loss at the start a regression counts as converged."""
        run = trace(
            pair(0.9e-6, 1.0),
            loss=lambda step: 1.0 if step < 20 else low - step / 1e4 * 8,
            accuracy=lambda step: NAN,
        )
        assert set(autotrainer.RULE.report(run)) <= codes | {"vanishing"}
        params = autotrainer.AutoTrainer(delta=0.0)
        assert set(autotrainer.RULE.report(run, params)) == codes


class TestDeepDiagnosis:
    @pytest.mark.parametrize(
        ("mean", "codes"),
        [(0.9e-7, {"vanishing"}), (1.1e-7, set()), (0.0, {"vanishing|dead_units|nonfinite"})],
    )
    def test_vanishing(self, mean: float, codes: set[str]) -> None:
        run = trace([weight(grad_mean_abs=mean)])
        assert set(deepdiagnosis.RULE.report(run)) == codes
        assert deepdiagnosis.RULE.report(trace([weight("a.bias", grad_mean_abs=mean)])) == {}

    @pytest.mark.parametrize(("share", "codes"), [(0.7, {"dead_units"}), (0.69, set())])
    def test_dead_in_the_last_epoch(self, share: float, codes: set[str]) -> None:
        found = deepdiagnosis.RULE.report(trace(activations=[activation(not_positive=share)]))
        assert set(found) == codes
        assert all(step == 195 for step in found.values())

    @pytest.mark.parametrize(("share", "codes"), [(0.51, {"saturated"}), (0.5, set())])
    def test_saturated(self, share: float, codes: set[str]) -> None:
        acts = [activation(kind="Tanh", input_beyond_5=share)]
        assert set(deepdiagnosis.RULE.report(trace(activations=acts))) == codes

    def test_loss_that_stays(self) -> None:
        assert deepdiagnosis.RULE.report(trace(loss=lambda step: 0.5)) == {"stalled": 95}
        slow = trace(loss=lambda step: 0.5 - 1e-6 * step)
        assert deepdiagnosis.RULE.report(slow) == {}

    def test_weights_that_stay(self) -> None:
        still = trace([weight(update_ratio=0.0), weight("b.weight")])
        assert deepdiagnosis.RULE.report(still) == {"stalled|vanishing": 95}

    def test_first_problem_ends_the_run(self) -> None:
        acts = [activation(kind="Tanh", input_beyond_5=0.9)]
        found = deepdiagnosis.RULE.report(trace([weight(grad_mean_abs=1e-9)], acts))
        assert found == {"vanishing": 15}


def test_parameters_may_come_and_go() -> None:
    def weights(step: int) -> list:
        return [weight("a.weight")] + ([weight("late.weight")] if step > 50 else [])

    seen = Seen.of(trace(weights))
    assert seen.weights == ("a.weight", "late.weight")
    assert math.isnan(seen.norm[0, 1])
    assert seen.finite.all()
    assert seen.epoch_steps == 20
    assert seen.epochs == 10


def test_tuning_finds_the_gap() -> None:
    """Healthy runs at 1e-7 and sick ones at 1e-11: 1e-6 calls all sick, something between none."""

    def run(norm: float) -> Trace:
        return trace([weight(norm=norm)], steps=20)

    pairs = [(run(1e-7), verdict()), (run(2e-7), verdict()), (run(1e-11), verdict("vanishing"))]
    params = tune(thresholds.RULE, pairs)
    assert 1e-11 < params.low <= 1e-7
    assert params.high == thresholds.Thresholds().high
    assert thresholds.RULE.report(pairs[0][0], params) == {}


def test_chance_in_a_few_batches_is_no_swing() -> None:
    """A run that learns nothing: accuracies of batches of 32 scatter about 0.2."""
    rng = np.random.default_rng(0)
    guessed = rng.binomial(32, 0.2, 200) / 32
    run = trace(accuracy=lambda step: guessed[step])
    assert set(autotrainer.RULE.report(run)) == {"stalled"}
