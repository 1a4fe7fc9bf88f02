"""The rescued run survives what kills the other; without a bad batch both are the same."""

import math

import pytest

from examples import rescue

pytestmark = pytest.mark.slow


def told(capsys, tmp_path, *switches):
    rescue.main(["--quick", "--logdir", str(tmp_path), *switches])
    text = capsys.readouterr().out
    dead, alive = text.split("\nGradWatch(actions=rescue()): ")
    return dead.partition("\nGradWatch(): ")[2], alive


@pytest.mark.parametrize("batch", ["pixels", "nan"])
def test_a_bad_batch_kills_one_and_not_the_other(batch, capsys, tmp_path):
    dead, alive = told(capsys, tmp_path, "--batch", batch)
    assert dead.startswith("accuracy 10.0%")
    assert "nan at the end" in dead
    assert float(alive.removeprefix("accuracy ").partition("%")[0]) > 80
    assert "\n  step 4" in alive  # what was done, at the batch or right after it
    assert "nan at the end" not in alive


def test_without_a_bad_batch_both_learn(capsys, tmp_path):
    for text in told(capsys, tmp_path, "--batch", "sound"):
        assert float(text.removeprefix("accuracy ").partition("%")[0]) > 80
        assert "GradWatch: healthy" in text
        assert "Rollback" not in text


def test_the_story_names_the_step_and_the_loss(tmp_path):
    words = ["--quick", "--rescue", "--logdir", str(tmp_path)]
    result = rescue.train(rescue.make_arguments().parse_args(words))
    lines = rescue.story(result, rescue.BAD_QUICK)
    steps = [done.step for done in result.watch.actions_taken]
    assert {*range(rescue.BAD_QUICK, rescue.BAD_QUICK + 3)} & {*steps}
    assert all(any(line.startswith(f"step {step}: ") for line in lines) for step in steps)
    assert math.isfinite(result.watch.history.loss[-1])
    assert lines[-1].startswith("loss: ")
