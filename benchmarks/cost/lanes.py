"""One round: a training for each variant, their steps in turn, in another order each time."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import random
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path

import pytorch_lightning as pl
import torch

from benchmarks.cost.inside import Bound, Timed
from benchmarks.cost.lane import Lane, Step, Stopwatch, Turnstile
from benchmarks.cost.models import MODELS, build
from benchmarks.cost.variants import AGAIN, PLAIN, WARM_UP, Variant

#: Number of glibc's setting for the number of heaps.
_ARENA_MAX = -8

#: Memory that the trainings of one group may take, weights, gradients and moments.
ROOM = 6 * 2**30


def one_heap() -> None:
    """Let every thread take memory where the main thread does, as an ordinary training would.

    glibc gives threads heaps of their own, each of which keeps what a step has freed. Must come
    before the threads.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)


def silence() -> None:
    """One thread, and nothing on the screen but the figures."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_gradwatch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Without its readings of the machine, W&B's own process takes less of it.
    os.environ |= {"WANDB_SILENT": "true", "WANDB_MODE": "offline", "WANDB_CONSOLE": "off"}
    os.environ["WANDB_X_DISABLE_STATS"] = "true"


def lane(model: str, variant: Variant, window: int, place: str) -> Lane:
    """Return a training that waits to be started."""
    spec = MODELS[model]
    network = build(model)
    logger = variant.logger(place)
    variant.prepare(network, logger, window)
    callbacks = variant.callbacks()
    stopwatch = Stopwatch()
    for callback in callbacks:
        if isinstance(callback, Bound):
            callback.stopwatch = stopwatch
    if variant.timed:
        callbacks.append(Timed(callbacks[0], stopwatch))
    turnstile = Turnstile(stopwatch)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=logger, callbacks=[turnstile, *callbacks],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        **variant.trainer,
    )  # fmt: skip
    module = variant.task(network, spec.lr)
    total = WARM_UP + window
    return Lane(variant.name, trainer, module, turnstile, total, variant.portable)


def groups(model: str, variants: Sequence[Variant]) -> list[list[Variant]]:
    """Divide the variants so that each group fits into memory, with plain training in each."""
    plain = [v for v in variants if v.name in (PLAIN, AGAIN)]
    others = [v for v in variants if v not in plain]
    numbers = sum(p.numel() for p in build(model).parameters())
    size = max(1, ROOM // (16 * numbers) - len(plain))
    count = max(1, -(-len(others) // size))
    return [plain + others[i::count] for i in range(count)]


def measure(
    model: str,
    variants: Sequence[Variant],
    window: int,
    seed: int,
    told: Callable[[int], None] = lambda _: None,
) -> list[dict[str, list[Step]]]:
    """Make one round of a model.

    Args:
        model: Key of `MODELS`.
        variants: What to compare; `plain` among them.
        window: Measured steps of each, after the warm-up.
        seed: Of the order.
        told: Called with the number of steps just made.

    Returns:
        For each group that was alive at once, the steps of each variant.
    """
    shuffle = random.Random(f"{model} {seed}")
    found = []
    for group in groups(model, variants):
        with tempfile.TemporaryDirectory() as place, _silent():
            found.append(_group(model, group, window, place, shuffle, told))
        gc.collect()
    return found


def _group(
    model: str,
    group: Sequence[Variant],
    window: int,
    place: str,
    shuffle: random.Random,
    told: Callable[[int], None],
) -> dict[str, list[Step]]:
    # The order in which memory is taken is random as well.
    made = shuffle.sample(list(group), len(group))
    lanes = [lane(model, variant, window, place) for variant in made]
    for each in lanes:
        each.start()
    for each in lanes:
        for _ in range(WARM_UP):
            each.turn(1)
            told(1)
    gc.collect()
    gc.freeze()  # a collection in one training does not have to look at all the others
    turn = MODELS[model].turn
    # Turns begin elsewhere in each round, so that no step is always the first of one.
    lengths = [shuffle.randint(1, turn)]
    while sum(lengths) < window:
        lengths.append(min(turn, window - sum(lengths)))
    for length in lengths:
        for each in shuffle.sample(lanes, len(lanes)):
            each.turn(length)
            told(length)
    for each in lanes:
        each.finish()
    gc.unfreeze()
    if any(variant.watch_every for variant in group):
        import wandb

        wandb.finish()
    return {each.name: each.turnstile.steps[WARM_UP:] for each in lanes}


def _silent() -> ExitStack:
    """Send what trainings print nowhere."""
    stack = ExitStack()
    nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    stack.enter_context(redirect_stdout(nowhere))
    stack.enter_context(redirect_stderr(nowhere))
    return stack
