"""`preflight`: the diagnosis before training."""

from __future__ import annotations

import math
import platform
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradwatch.before_start.judge import findings_of, open_zeros, starves
from lightning_gradwatch.before_start.losses import fresh, loss_function, on_device_of
from lightning_gradwatch.before_start.passes import PASSES, take_passes
from lightning_gradwatch.culprit.batches import Kept
from lightning_gradwatch.culprit.find import Replay, find
from lightning_gradwatch.culprit.tell import name_culprit
from lightning_gradwatch.culprit.undisturbed import refuse_lazy, undisturbed
from lightning_gradwatch.diagnosis import Diagnosis
from lightning_gradwatch.facts import ModelFacts
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.history import History
from lightning_gradwatch.probe.facts import read_facts
from lightning_gradwatch.probe.host import Host
from lightning_gradwatch.report import Report
from lightning_gradwatch.sample import Sample
from lightning_gradwatch.settings import Settings
from lightning_gradwatch.version import __version__


def preflight(model: nn.Module, batch: Any, loss_fn: Callable[..., Tensor] | None = None) -> Report:
    """Say before training whether gradients vanish, explode, saturate or are not finite.

    Makes a few forward and backward passes on one batch in training mode, and no optimizer step.
    Weights, gradients, buffers, modes and random states are afterwards what they were.

    Args:
        model: A LightningModule, or any module.
        batch: A real batch: a tensor, a tuple whose last item is the target, or a dictionary of
            the model's arguments. Its tensors are moved to the device of the model.
        loss_fn: Called with the model's output and the target, returns the loss. None: the loss
            is what `training_step` returns, or the model itself (a scalar, or its `.loss`).

    Returns:
        The report; `report.healthy` is true if nothing of severity WARNING was found.

    Raises:
        TypeError: `model` is no module, or `loss_fn` cannot be called.
        ValueError: there is no way from the batch to a loss, or parameters have no shape yet.

    Example:
        >>> def deep(activation):
        ...     layers = [m for _ in range(20) for m in (nn.Linear(16, 16), activation())]
        ...     return nn.Sequential(*layers, nn.Linear(16, 1))
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch._C.Generator object at ...>
        >>> batch = torch.randn(32, 16), torch.randn(32, 1)
        >>> preflight(deep(nn.Sigmoid), batch, nn.functional.mse_loss).verdict
        'vanishing gradients'
    """
    make_loss = loss_function(model, batch, loss_fn)
    refuse_lazy(model)
    batch = on_device_of(model, batch)
    facts = read_facts(model, (), Host())
    mode = None if model.training else True
    findings, samples = examine(model, make_loss, batch, Settings(), facts, mode=mode)
    diagnosis = Diagnosis(facts)
    for sample in samples:
        diagnosis.see(sample)
    diagnosis.observe(findings, 0)
    history = History()
    for i, sample in enumerate(samples):
        history.append(replace(sample, step=i, update=None))
    return Report.build(
        history,
        diagnosis.findings,
        config={"passes": PASSES},
        environment={
            "lightning_gradwatch": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "model": type(model).__name__,
        },
    )


def examine(
    module: nn.Module,
    make_loss: Callable[[Any], Tensor],
    batch: Any,
    settings: Settings,
    facts: ModelFacts,
    *,
    step: int = 0,
    batch_idx: int = 0,
    scale: float = 1.0,
    mode: bool | None = None,
) -> tuple[list[Finding], list[Sample]]:
    """Make the passes, leave no trace, and return findings without causes, and the samples.

    Args:
        module: The module.
        make_loss: Makes a forward pass of a batch and returns the loss.
        batch: The batch.
        settings: What to read.
        facts: What is known of the model.
        step: The step of the findings.
        batch_idx: Index of the batch.
        scale: What the loss is multiplied by on its way back.
        mode: Training mode of the modules; None: as they are.
    """

    def run() -> Tensor:
        return make_loss(fresh(batch))

    def passes(prepare: Callable[[], None] | None = None) -> list[Sample]:
        with undisturbed(module, mode), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if prepare is not None:
                prepare()
            return take_passes(module, run, settings, step, scale)

    samples = passes()
    # A gradient scaler starts too high on purpose and finds its scale in the first steps.
    while scale > 1.0 and any(
        math.isfinite(s.loss) and not math.isfinite(s.global_norm) for s in samples
    ):
        scale = max(1.0, scale / 256)
        samples = passes()
    findings = findings_of(samples, facts.recurrent)
    fill = open_zeros(module) if starves(samples) else None
    if fill is not None and not starves(passes(fill)):  # what starts at zero opens by itself
        findings = [
            f for f in findings if f.code != "vanishing" or "learning_share" not in f.evidence
        ]
    if any(f.code == "nonfinite" for f in findings):
        with undisturbed(module, mode):
            kept = [Kept.of(batch, batch_idx)]
            answer = find(Replay(module, lambda given, _: make_loss(given), kept, scale))
        findings = [
            name_culprit(f, answer, batch_idx) if f.code == "nonfinite" else f for f in findings
        ]
    return findings, samples
