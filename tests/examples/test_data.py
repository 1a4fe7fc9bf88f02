import pytest
import torch

from examples import adding, digits


@pytest.mark.parametrize("form", digits.SHAPES)
def test_every_form_has_its_shape_and_the_same_digits(form):
    train, val = digits.datasets(form)
    x, labels = train.tensors
    assert x.shape == (1437, *digits.SHAPES[form])
    assert len(val) == 360
    assert x.dtype == torch.float32
    assert torch.equal(labels, digits.datasets("vectors")[0].tensors[1])
    assert sorted(labels.unique().tolist()) == list(range(digits.CLASSES))


def test_training_pixels_are_standardised():
    x = digits.datasets("vectors")[0].tensors[0]
    assert x.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert x.std().item() == pytest.approx(1.0, abs=1e-4)


def test_sequences_run_by_columns_from_the_right():
    image = digits.datasets("images")[0].tensors[0][0, 0]
    sequence = digits.datasets("sequences")[0].tensors[0][0, :, 0]
    assert torch.equal(sequence[:8], image[:, 7])
    assert torch.equal(sequence[-8:], image[:, 0])


def test_the_end_of_a_sequence_says_next_to_nothing():
    last = digits.datasets("sequences")[0].tensors[0][:, -8:, 0]
    blank = last.min()
    assert (last > blank).float().mean() < 0.01


def test_unknown_form_shows_the_choices():
    with pytest.raises(ValueError, match="vectors, images, sequences, got 'rows'"):
        digits.datasets("rows")


@pytest.mark.parametrize("length", [2, 3, 64])
def test_adding_marks_one_number_in_each_half(length):
    x, y = adding.dataset(200, length, seed=3).tensors
    marks = x[..., 1]
    assert torch.equal(marks[:, : length // 2].sum(1), torch.ones(200))
    assert torch.equal(marks[:, length // 2 :].sum(1), torch.ones(200))
    assert torch.allclose((x[..., 0] * marks).sum(1, keepdim=True), y)


def test_adding_needs_two_steps():
    with pytest.raises(ValueError, match=r"at least 2 .* got 1"):
        adding.dataset(10, 1, seed=0)
