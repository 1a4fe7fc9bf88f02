"""What an example proposes next follows from the findings and from its own switches."""

import argparse
from types import SimpleNamespace

import pytest

from examples import classic_failures, mlp, residual, rnn
from examples.options import command, untreated, variant
from examples.result import Result, next_steps
from lightning_gradwatch import Finding, Severity

EXAMPLES = (mlp, residual, rnn, classic_failures)


def parse(example, words=""):
    parser = example.make_arguments()
    return parser, parser.parse_args(words.split())


def proposals(example, words, *codes, score=0.1, lr=0.05):
    parser, args = parse(example, words)
    findings = tuple(Finding(code, Severity.ERROR, (), 0, 1) for code in codes)
    watch = SimpleNamespace(findings=findings, healthy=not findings)
    result = Result(watch, SimpleNamespace(lr=lr), score, 0.1, 40, None)
    return parser, args, [line for line, _ in next_steps(parser, args, result, example.REMEDIES)]


def parsed(parser, line):
    words = line.split()
    return parser.parse_args(words[words.index("-m") + 2 :])


@pytest.mark.parametrize(
    ("example", "words"),
    [
        (mlp, ""),
        (mlp, "--batch-norm --lr 1e-07 --clip 0.5 --lr-schedule cosine --seed 7"),
        (mlp, "--quick --epochs 3 --steps 10 --logdir somewhere/else"),
        (residual, "--residual --no-batch-norm --depth 8"),
        (rnn, "--cell gru --task adding --length 100 --recurrent-init orthogonal"),
        (classic_failures, "--case saturation --scale --init xavier"),
    ],
)
def test_a_command_gives_the_same_arguments_back(example, words):
    parser, args = parse(example, words)
    assert parsed(parser, command(parser, args)) == args


def test_every_proposal_is_valid_and_changes_something():
    for example in EXAMPLES:
        for code in ("vanishing", "exploding", "nonfinite", "oscillating", "stalled"):
            words = "--case overflow" if example is classic_failures else ""
            parser, args, lines = proposals(example, words, code)
            assert lines, f"{example.__name__} has nothing against {code}"
            assert len(set(lines)) == len(lines)
            for line in lines:
                assert parsed(parser, line) != args


@pytest.mark.parametrize(
    ("example", "words", "gone"),
    [
        (mlp, "--batch-norm", {"batch_norm": True}),
        (mlp, "--activation relu --init he", {"activation": "relu", "init": "he"}),
        (residual, "--residual", {"residual": True}),
    ],
)
def test_what_is_in_place_is_not_proposed_again_and_is_kept(example, words, gone):
    parser, args, lines = proposals(example, words, "vanishing")
    before = {k: getattr(args, k) for k in gone}
    assert before == gone
    assert command(parser, args) not in lines
    others = [vars(parsed(parser, line)) for line in lines]
    kept = [other for other in others if all(other[k] == v for k, v in gone.items())]
    assert kept


def test_gates_are_not_proposed_to_a_network_that_has_them():
    _, _, lines = proposals(rnn, "--cell lstm --gate-bias 0", "vanishing")
    assert lines
    assert all("--cell lstm" in line for line in lines)
    assert not any("--gate-bias 0" in line for line in lines)


def test_the_learning_rate_proposed_is_a_tenth_of_the_one_in_use():
    parser, _, lines = proposals(mlp, "--activation relu", "exploding", lr=0.5)
    assert 0.05 in [parsed(parser, line).lr for line in lines]


def test_a_healthy_run_that_has_not_learned_is_given_more_time():
    parser, _, lines = proposals(mlp, "--batch-norm --quick", score=0.3)
    assert parsed(parser, lines[0]).epochs == 80
    assert not parsed(parser, lines[0]).quick


def test_a_healthy_run_that_has_learned_is_shown_the_untreated_one():
    parser, _, lines = proposals(rnn, "--task adding --cell gru", score=0.99)
    assert [parsed(parser, line) for line in lines] == [parse(rnn, "--task adding")[1]]
    assert proposals(mlp, "", score=0.99)[2] == []


def test_a_score_that_is_not_a_number_counts_as_not_learned():
    assert proposals(classic_failures, "--case overflow", score=float("nan"))[2]


def test_variant_names_what_was_switched():
    parser, args = parse(rnn, "--cell gru --lr 0.1 --seed 3 --quick")
    assert variant(parser, args) == "cell-gru_lr-0.1"
    assert variant(*parse(mlp)) == "default"
    assert untreated(parser, args) == parse(rnn)[1]


def test_help_teaches(capsys):
    for example in EXAMPLES:
        with pytest.raises(SystemExit) as stop:
            example.make_arguments().parse_args(["--help"])
        assert stop.value.code == 0
        shown = capsys.readouterr().out
        assert "References:" in shown
        assert "--seed" in shown


def test_unknown_choice_shows_the_choices(capsys):
    with pytest.raises(SystemExit):
        parse(mlp, "--activation swish")
    assert "leaky_relu" in capsys.readouterr().err


def test_arguments_are_a_plain_namespace():
    assert type(parse(mlp)[1]) is argparse.Namespace
