"""The data: 1,797 handwritten digits of 8x8 pixels, which ship inside scikit-learn.

The same images come in three forms, one for each kind of network: as vectors of 64 numbers, as
8x8 images, and pixel by pixel as sequences of 64 steps, as in Le et al. (2015). The sequences run
column by column from the right, since the leftmost column is blank in almost every image: a
network without memory sees only that one, and can do no better than guess.

References:
    - Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI repository.
    - Le, Jaitly and Hinton (2015), https://arxiv.org/abs/1504.00941
"""

from __future__ import annotations

from typing import Literal

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset

Form = Literal["vectors", "images", "sequences"]

#: Classes, and so the accuracy of guessing is one in ten.
CLASSES = 10

#: Shape of one sample in each form.
SHAPES: dict[Form, tuple[int, ...]] = {
    "vectors": (64,),
    "images": (1, 8, 8),
    "sequences": (64, 1),
}


def datasets(form: Form = "vectors") -> tuple[TensorDataset, TensorDataset]:
    """Return the training set (1,437 digits) and the validation set (360), always the same split.

    Pixels are standardised by one mean and one deviation of the training set, so that the image
    stays an image.

    Args:
        form: `"vectors"` (64,), `"images"` (1, 8, 8) or `"sequences"` (64, 1).

    Raises:
        ValueError: `form` is none of these.

    Example:
        >>> train, val = datasets("images")
        >>> len(train), len(val), tuple(train[0][0].shape)
        (1437, 360, (1, 8, 8))
    """
    if form not in SHAPES:
        raise ValueError(f"form must be one of {', '.join(SHAPES)}, got {form!r}")
    pixels, labels = load_digits(return_X_y=True)
    x_train, x_val, y_train, y_val = train_test_split(
        pixels, labels, test_size=0.2, random_state=0, stratify=labels
    )
    mean, deviation = x_train.mean(), x_train.std()

    def as_dataset(x: object, y: object) -> TensorDataset:
        images = torch.as_tensor((x - mean) / deviation, dtype=torch.float32)
        if form == "sequences":
            images = images.reshape(-1, 8, 8).flip(2).transpose(1, 2)
        return TensorDataset(images.reshape(-1, *SHAPES[form]), torch.as_tensor(y))

    return as_dataset(x_train, y_train), as_dataset(x_val, y_val)


def loaders(form: Form = "vectors", batch_size: int = 64) -> tuple[DataLoader, DataLoader]:
    """Return the shuffled training batches and the whole validation set as one batch.

    The incomplete last batch is dropped, as BatchNorm needs more than a handful of samples.
    """
    train, val = datasets(form)
    return (
        DataLoader(train, batch_size=batch_size, shuffle=True, drop_last=True),
        DataLoader(val, batch_size=len(val)),
    )
