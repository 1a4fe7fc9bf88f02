"""The four sick networks that every remedy is tried on, and how one of them is treated.

Each is one of the examples, as it comes. A dose is what is done to it: switches of that example,
an operation on the finished network where there is no switch, or more data.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
import torch
from pytorch_lightning import Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from examples import digits, mlp, residual, rnn
from examples.result import Result
from lightning_gradwatch import GradWatch, History


@dataclass(frozen=True)
class Patient:
    """A network that does not learn, and why.

    Attributes:
        title: What it is, in a few words.
        example: Where it comes from.
        form: What it sees of the digits.
        epochs: How long it trains, healthy ones long enough to learn.
        switches: What makes it sick, beyond the example's defaults.
    """

    title: str
    example: ModuleType
    form: digits.Form
    epochs: int
    switches: str = ""


#: By the name that the tables use.
PATIENTS: dict[str, Patient] = {
    "vanishing MLP": Patient("six sigmoid layers, SGD", mlp, "vectors", 50),
    "plain CNN": Patient(
        "24 plain convolutions, SGD with momentum", residual, "images", 15, "--optimizer momentum"
    ),
    "RNN": Patient("a tanh RNN that must recall 64 steps, SGD", rnn, "sequences", 25),
    "exploding MLP": Patient(
        "six ReLU layers, unit-normal weights, SGD",
        mlp,
        "vectors",
        30,
        "--activation relu --init large",
    ),
}


@dataclass(frozen=True)
class Dose:
    """What is done to a patient.

    Attributes:
        switches: Switches of its example, set in addition.
        operation: What is done to the network before training; None: nothing.
        copies: Training sets that differ, of which the same number of steps is drawn.
    """

    switches: str = ""
    operation: Callable[[nn.Module], None] | None = field(default=None)
    copies: bool = False


def treat(name: str, dose: Dose, seed: int, quick: bool) -> Result:
    """Train a patient under a dose; return what GradWatch saw and the accuracy on unseen digits."""
    patient = PATIENTS[name]
    parser = patient.example.make_arguments()
    parser.set_defaults(clip=None)  # clipping is a remedy here, whatever the example's default
    args = parser.parse_args(shlex.split(f"{patient.switches} {dose.switches}"))
    seed_everything(seed)
    model = patient.example.build(args)
    if dose.operation is not None:
        dose.operation(model)
    training, validation = digits.loaders(patient.form)
    watch = GradWatch(record=False, reporters=())
    trainer = Trainer(
        max_epochs=patient.epochs,
        max_steps=6 if quick else -1,
        callbacks=[watch],
        gradient_clip_val=args.clip,
        accelerator="cpu",
        logger=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    warnings.filterwarnings("ignore", message=".*have no `val_dataloader`")  # scored at the end
    trainer.fit(model, shifted_copies(training) if dose.copies else training)
    return Result.of(trainer, model, watch, validation, chance=1 / digits.CLASSES)


def shifted_copies(loader: DataLoader) -> DataLoader:
    """Return batches of five times as many digits: each also moved by a pixel in four directions.

    An epoch has as many steps as before, so that only the variety differs.
    """
    assert isinstance(loader.dataset, TensorDataset)
    x, labels = loader.dataset.tensors
    images = x.reshape(-1, 8, 8)
    moved = [images, *(_moved(images, axis, by) for axis in (1, 2) for by in (-1, 1))]
    data = TensorDataset(torch.cat(moved).reshape(-1, *x.shape[1:]), labels.repeat(len(moved)))
    steps = len(loader) * (loader.batch_size or 1)
    return DataLoader(
        data, loader.batch_size, sampler=RandomSampler(data, num_samples=steps), drop_last=True
    )


def _moved(images: Tensor, axis: int, by: int) -> Tensor:
    moved = images.roll(by, axis)
    moved.select(axis, 0 if by > 0 else -1).fill_(images.min())  # what came round is blank
    return moved


def error_signal(history: History) -> tuple[float, float]:
    """Return how much of the error signal arrives where it has farthest to go.

    The gradient at the output of the first linear or convolutional layer over that of the last;
    through time, at the first tenth of the time steps over the last tenth.

    Returns:
        At the first step, and the median over the later measured steps; NaN where nothing finite
        was measured.
    """
    ratios = {step: _ratio(flow) for step, flow in history.flow}
    first = next(iter(ratios.values()), float("nan"))
    later = [r for step, r in ratios.items() if step >= 10 and np.isfinite(r)]
    later = later or [r for r in ratios.values() if np.isfinite(r)]
    return first, float(np.median(later)) if later else float("nan")


@np.errstate(divide="ignore", invalid="ignore", over="ignore")
def _ratio(flow: object) -> float:
    for profile in flow.time_profiles:
        tenth = max(1, len(profile.grad_norm) // 10)
        return float(profile.grad_norm[:tenth].mean() / profile.grad_norm[-tenth:].mean())
    modules = flow.modules
    if modules is None:
        return float("nan")
    weighted = [i for i, k in enumerate(modules.kinds) if k.endswith(("Linear", "Conv2d"))]
    norms = modules.out_grad_norm[weighted]
    return float(norms[0] / norms[-1]) if len(norms) > 1 else float("nan")
