"""Sick runs are found sick for the right reason, cured ones are healthy and have learned."""

import pytest

from examples import classic_failures, demo, mlp, residual, rnn
from lightning_gradwatch import Severity

SLOW = pytest.mark.slow


def train(example, words, folder):
    return example.train(
        example.make_arguments().parse_args([*words.split(), "--logdir", str(folder)])
    )


def finding(result, code):
    found = {f.code: f for f in result.watch.findings if f.severity >= Severity.WARNING}
    assert code in found, f"found {list(found)}, expected {code}"
    return found[code]


def test_deep_sigmoid_vanishes_in_its_early_layers(tmp_path):
    result = train(mlp, "--epochs 15", tmp_path)
    vanishing = finding(result, "vanishing")
    assert "hidden.0.linear" in vanishing.layers
    assert "output" not in vanishing.layers
    assert vanishing.remedies
    assert {f.code for f in result.watch.findings} == {"vanishing"}
    assert result.score < 0.2


@pytest.mark.parametrize(
    ("words", "accuracy"),
    [
        ("--batch-norm --epochs 30", 0.9),
        ("--activation relu --init he --epochs 30", 0.9),
        ("--activation tanh --init xavier --epochs 30", 0.9),
        ("--activation tanh --epochs 30", 0.8),
        pytest.param("--activation relu", 0.9, marks=SLOW),
        pytest.param("--activation prelu", 0.9, marks=SLOW),
        pytest.param("--activation leaky_relu", 0.9, marks=SLOW),
    ],
)
def test_cured_mlp_is_healthy(words, accuracy, tmp_path):
    result = train(mlp, words, tmp_path)
    assert result.watch.healthy, result.watch.findings
    assert result.score > accuracy


@pytest.mark.parametrize(
    "words",
    ["--dropout 0.2", "--weight-norm", "--lr-schedule cosine", "--clip 1", "--init small"],
)
def test_what_does_not_cure_the_mlp_is_still_found_sick(words, tmp_path):
    result = train(mlp, f"--epochs 15 {words}", tmp_path)
    finding(result, "vanishing")
    assert result.score < 0.2


def test_plain_stack_vanishes_in_its_first_convolutions(tmp_path):
    result = train(residual, "--epochs 4", tmp_path)
    vanishing = finding(result, "vanishing")
    assert "stem" in vanishing.layers
    assert "head" not in vanishing.layers
    assert result.score < 0.2


@SLOW
@pytest.mark.parametrize(
    ("words", "accuracy"),
    [
        ("--residual --batch-norm --epochs 6", 0.9),
        ("--residual --epochs 15", 0.8),
        ("--batch-norm --epochs 4", 0.1),
    ],
)
def test_cured_stack_is_healthy(words, accuracy, tmp_path):
    result = train(residual, words, tmp_path)
    assert result.watch.healthy, result.watch.findings
    assert result.score > accuracy


@pytest.mark.parametrize("words", ["", "--batch-norm", "--task adding"])
def test_tanh_rnn_vanishes_through_time(words, tmp_path):
    result = train(rnn, f"--epochs 6 {words}", tmp_path)
    vanishing = finding(result, "vanishing")
    assert "rnn" in vanishing.layers
    assert "time" in vanishing.summary
    assert result.score < 0.2


@SLOW
@pytest.mark.parametrize(
    ("words", "score"),
    [
        ("--recurrent-init orthogonal --epochs 25", 0.5),
        ("--cell gru --epochs 25", 0.4),
        ("--cell lstm --epochs 25", 0.4),
        ("--cell rnn_relu --epochs 25", 0.3),
        ("--task adding --cell gru --epochs 20", 0.9),
    ],
)
def test_cured_rnn_is_healthy(words, score, tmp_path):
    result = train(rnn, words, tmp_path)
    assert result.watch.healthy, result.watch.findings
    assert result.score > score


def test_regression_on_squares_overflows(tmp_path):
    result = train(classic_failures, "--case overflow --epochs 3", tmp_path)
    assert {"exploding", "nonfinite"} <= {f.code for f in result.watch.findings}
    assert finding(result, "exploding").first_step < finding(result, "nonfinite").first_step
    assert not result.score > 0


@pytest.mark.parametrize("cure", ["--scale", "--lr 1e-7"])
def test_regression_on_squares_cured(cure, tmp_path):
    result = train(classic_failures, f"--case overflow {cure}", tmp_path)
    assert result.watch.healthy, result.watch.findings
    assert result.score > 0.8


def test_saturated_perceptron_vanishes_in_its_hidden_layer(tmp_path):
    result = train(classic_failures, "--case saturation --epochs 10", tmp_path)
    vanishing = finding(result, "vanishing")
    assert "hidden" in vanishing.layers
    assert "output" not in vanishing.layers
    assert result.score < 0.1


def test_saturated_perceptron_cured(tmp_path):
    result = train(classic_failures, "--case saturation --scale", tmp_path)
    assert result.watch.healthy, result.watch.findings
    assert result.score > 0.85


def test_demo_heals_what_it_found(tmp_path, capsys):
    sick, cured = demo.main(["--epochs", "15", "--logdir", str(tmp_path)])
    assert not sick.watch.healthy
    assert cured.watch.healthy
    assert cured.score > 0.8 > 0.2 > sick.score
    shown = capsys.readouterr().out
    assert "vanishing" in shown
    assert f"tensorboard --logdir {tmp_path}" in shown
