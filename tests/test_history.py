"""History: bounded, extremes kept, columns that follow the layout."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_gradwatch import History
from lightning_gradwatch.layers import Layout
from lightning_gradwatch.sample import Flow, TimeProfile
from lightning_gradwatch.testing import make_sample

NAN, INF = float("nan"), float("inf")


def filled(n: int, special: dict[int, list[float | None]], **limits: int) -> History:
    history = History(**limits)
    rng = np.random.default_rng(0)
    for step in range(n):
        norms = special.get(step, list(np.exp(0.1 * rng.standard_normal(3))))
        history.append(make_sample(step, norms, loss=1.0, lr=0.1))
    return history


@pytest.mark.parametrize("value", [NAN, INF, 1e6, 1e-9])
def test_one_odd_step_of_one_layer_survives_any_length(value):
    history = filled(5000, {77: [1.0, value, 1.0]}, max_rows=128)
    assert len(history) <= 128
    assert history.recorded == 5000
    row = history.steps.tolist().index(77)
    assert history.grad_norm[row, 1] == pytest.approx(value, nan_ok=True)
    assert history.steps.tolist() == sorted(set(history.steps.tolist()))
    assert history.steps[-1] == 4999


def test_extremes_of_layers_are_exact():
    history = filled(3000, {5: [1e-7, 1.0, NAN], 6: [2.0, 9e4, None]}, max_rows=64)
    assert history.layer_min[0] == 1e-7
    assert history.layer_max[1] == 9e4
    assert history.layer_nonfinite.tolist() == [0, 0, 1]


def test_memory_is_bounded_for_wide_models():
    layout = Layout.of({f"l{i}.weight": 1 for i in range(20_000)})
    history = History(max_bytes=2**24)
    for step in range(300):
        history.append(make_sample(step, dict.fromkeys(layout.parameters, 1.0), layout=layout))
    assert history._grad.nbytes + history._ratio.nbytes + history._has.nbytes <= 2**24


def test_missing_is_not_nan():
    history = filled(2, {0: [1.0, None, NAN], 1: [1.0, 2.0, 3.0]})
    assert history.has_grad.tolist() == [[True, False, True], [True, True, True]]
    assert np.isnan(history.grad_norm[0, 1:]).all()
    assert np.isnan(history.layer_grad_norm[0, 1])


def test_new_parameters_keep_the_old_rows():
    history = History()
    history.append(make_sample(0, {"b.weight": 2.0}))
    history.append(make_sample(1, {"a.weight": 1.0, "b.weight": 3.0}))
    assert history.parameters == ("a.weight", "b.weight")
    assert history.grad_norm[:, 1].tolist() == [2.0, 3.0]
    assert history.has_grad.tolist() == [[False, True], [True, True]]
    assert history.layer_min.tolist() == [1.0, 2.0]
    assert history.recorded == 2


def test_arrays_are_copies():
    history = filled(4, {})
    history.grad_norm[:] = -1
    history.steps[:] = -1
    assert (history.grad_norm > 0).all()
    assert history.steps.tolist() == [0, 1, 2, 3]


def test_empty_history_has_shapes():
    history = History()
    assert history.grad_norm.shape == history.layer_grad_norm.shape == (0, 0)
    assert history.steps.shape == history.loss.shape == (0,)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, INF])
def test_layer_norms_match_the_sample(norm_type):
    history = History(norm_type)
    sample = make_sample(0, {"a.weight": 3.0, "a.bias": 4.0, "b.weight": 5.0}, norm_type=norm_type)
    history.append(sample)
    assert history.layer_grad_norm[0] == pytest.approx(sample.layer_grad_norm)
    assert sample.layer_grad_norm[0] == {1.0: 7.0, 2.0: 5.0, INF: 4.0}[norm_type]


def test_to_pandas():
    frame = filled(3, {}).to_pandas()
    assert frame.index.tolist() == [0, 1, 2]
    assert {"loss", "global_norm", "grad_norm/layer0"} <= set(frame.columns)


def test_flow_is_bounded_by_memory():
    history = History()
    profiles = tuple(TimeProfile(f"rnn{i}", np.ones(2**16)) for i in range(2))  # 1 MiB
    for step in range(100):
        history.append(make_sample(step, [1.0], flow=Flow(profiles)))
        assert sum(flow.nbytes for _, flow in history.flow) <= 33 * 2**20
    steps = [step for step, _ in history.flow]
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (0, 99)
