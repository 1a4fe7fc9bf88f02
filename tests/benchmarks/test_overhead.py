"""The instrument of `benchmarks.overhead`: it measures what it says and changes no training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from benchmarks import overhead
from benchmarks.cost import figures, lanes, memory, models, peers, sheets
from benchmarks.cost.inside import Bound, Timed
from benchmarks.cost.lane import Lane, Step, Stopwatch, Turnstile
from benchmarks.cost.models import MODELS, Model, Spec, build
from benchmarks.cost.training import Task
from benchmarks.cost.variants import (
    AGAIN,
    BOUND,
    NORMS_INSIDE,
    PLAIN,
    VARIANTS,
    WARM_UP,
    WHOLE,
    WHOLE_INSIDE,
)
from lightning_gradwatch import GradWatch
from lightning_gradwatch.lightning_trainer import TrainerView


class Tiny(Model):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        self.batches = [(torch.randn(3, 4), torch.randn(3, 2)) for _ in range(2)]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "mlp", Spec("tiny", Tiny, turn=3))
    # What `silence` turns off stays off in other tests otherwise.
    monkeypatch.setattr(overhead.lanes, "silence", lambda: torch.set_num_threads(1))


def trainer(*callbacks: Any, logger: Any = False, **arguments: Any) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=logger, callbacks=list(callbacks),
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        **arguments,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "tensors", "numbers"),
    [
        (models.Mlp, 40, 1_315_840),
        (models.Many, 1040, 274_560),
        (models.ResNet18, 62, 11_173_962),
        (models.Transformer, 76, 10_844_672),
        (models.Big, 24, 50_356_224),
    ],
)
def test_models_are_as_large_as_they_say(make: type[Model], tensors: int, numbers: int):
    with torch.device("meta"):
        parameters = list(make().parameters())
    assert len(parameters) == tensors
    assert sum(p.numel() for p in parameters) == numbers


def test_a_model_is_the_same_every_time_and_leaves_random_numbers_alone():
    before = torch.get_rng_state()
    first, second = build("mlp"), build("mlp")
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first(), second())
    assert not torch.equal(first(), first())  # the next batch


def test_a_lane_measures_every_step_and_changes_no_weight():
    alone = Task(build("mlp"))
    trainer().fit(alone, [0] * 8)
    turnstile = Turnstile()
    module = Task(build("mlp"))
    lane = Lane("tiny", trainer(turnstile), module, turnstile, total=7)
    lane.start()
    for turn in (1, 3, 9):  # more than are left
        lane.turn(turn)
    lane.finish()
    steps = turnstile.steps
    assert [step.index for step in steps] == list(range(7))
    assert [step.first for step in steps] == [True, True, False, False, True, False, False]
    assert all(step.cpu > 0 and step.wall > 0 for step in steps)
    for here, there in zip(module.parameters(), alone.parameters(), strict=True):
        assert torch.equal(here, there)


def test_an_error_in_a_training_comes_out():
    class Broken(Task):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if batch_idx == 2:
                raise ValueError("no more")
            return super().training_step(batch, batch_idx)

    turnstile = Turnstile()
    lane = Lane("broken", trainer(turnstile), Broken(build("mlp")), turnstile, total=5)
    lane.start()
    lane.turn(2)
    with pytest.raises(RuntimeError, match="broken failed") as failed:
        lane.turn(2)
    assert isinstance(failed.value.__cause__, ValueError)


def test_groups_fit_into_memory_and_each_has_its_control(monkeypatch: pytest.MonkeyPatch):
    every = list(VARIANTS.values())
    assert len(lanes.groups("mlp", every)) == 1
    size = 16 * sum(p.numel() for p in build("mlp").parameters())
    monkeypatch.setattr(lanes, "ROOM", 6 * size)
    found = lanes.groups("mlp", every)
    assert all(len(group) <= 6 for group in found)
    assert all([v.name for v in group[:2]] == [PLAIN, AGAIN] for group in found)
    assert {v.name for group in found for v in group} == set(VARIANTS)


def step(cpu: float, first: bool = False, inside: float = 0.0) -> Step:
    return Step(0, cpu, cpu, inside, first)


def test_figures_leave_out_first_steps_and_weigh_long_periods():
    found = figures.curve([[step(9.0, True), step(2.0)], [step(1.0), step(4.0)]], figures.cpu)
    assert found.tolist() == [1.0, 3.0]
    rare = "wandb.watch(log_freq=100)"
    plain = [step(1.0) for _ in range(50)]
    logs = [step(11.0 if i == 20 else 1.0) for i in range(50)]
    sheet = figures.sheet([[{PLAIN: plain, AGAIN: plain, rare: logs, WHOLE: logs}]])
    assert sheet.rows[AGAIN].whole_ratio == sheet.rows[WHOLE].usual_ratio == 1.0
    assert sheet.rows[WHOLE].whole_ratio == pytest.approx(1.2)  # ten steps' time in fifty
    assert sheet.rows[rare].whole_ratio == pytest.approx(1.1)  # in a hundred
    assert sheet.spread == 0.0


def test_the_spread_is_what_the_control_shows():
    plain = [step(1.0) for _ in range(10)]
    off = [step(1.1) for _ in range(10)]
    once = figures.sheet([[{PLAIN: plain, AGAIN: off}]])
    often = figures.sheet([[{PLAIN: plain, AGAIN: off}]] * 4)
    assert once.spread == pytest.approx(0.2)
    assert often.spread == pytest.approx(0.1)


def test_timing_from_inside_goes_unnoticed():
    stopwatch, watch = Stopwatch(), GradWatch(record=False, reporters=[])
    fit = trainer(watch, Timed(watch, stopwatch))
    module = Task(build("mlp"))
    fit.fit(module, [0] * 3)
    assert stopwatch.take() > 0.0
    assert stopwatch.take() == 0.0
    assert not TrainerView(fit, module).others_may_clip
    assert watch.history.recorded == 3


def test_the_bound_is_measured_and_moves_nothing():
    bound, alone, module = Bound(), Task(build("mlp")), Task(build("mlp"))
    bound.stopwatch = Stopwatch()
    trainer().fit(alone, [0] * 3)
    trainer(bound).fit(module, [0] * 3)
    assert 0.0 < bound.stopwatch.take() < 1.0
    assert all(map(torch.equal, module.parameters(), alone.parameters()))


class Kept(pl.loggers.Logger):
    """Keeps what it is given."""

    name, version = "kept", 0

    def __init__(self) -> None:
        super().__init__()
        self.given: list[dict[str, float]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.given.append({name: float(value) for name, value in metrics.items()})

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""


class Reference(pl.Callback):
    """All gradients of the last step, flat."""

    flat: Tensor

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        self.flat = torch.cat([p.grad.flatten() for p in module.parameters()])


def test_the_proposed_monitor_says_what_it_documents():
    logger, truth = Kept(), Reference()
    monitor = peers.GradientStatsMonitor(per_layer=True, every=1)
    trainer(truth, monitor, logger=logger, log_every_n_steps=1).fit(Task(build("mlp")), [0])
    logged = {k: v for given in logger.given for k, v in given.items()}
    flat = truth.flat
    assert logged["train/grad/global_norm"] == pytest.approx(float(flat.norm()), rel=1e-5)
    assert logged["train/grad/mean"] == pytest.approx(float(flat.mean()), rel=1e-4, abs=1e-7)
    assert logged["train/grad/std"] == pytest.approx(float(flat.std(correction=0)), rel=1e-4)
    assert logged["train/grad/sparsity"] == float((flat.abs() < 1e-6).float().mean())
    assert sum(name.endswith("_norm") for name in logged) == 4 + 1
    assert set(monitor.epoch) == {name.removeprefix("train/") for name in logged} - {"epoch"}


def test_composers_monitor_logs_on_its_interval():
    logger, truth = Kept(), Reference()
    trainer(truth, peers.OptimizerMonitor(2), logger=logger).fit(Task(build("mlp")), [0] * 4)
    assert len(logger.given) == 2
    assert logger.given[-1]["l2_norm/grad/global"] == pytest.approx(float(truth.flat.norm()))
    assert len(logger.given[-1]) == 4 + 1


def test_zclip_waits_and_then_clips_what_stands_out():
    clip, model = peers.ZClip(), nn.Linear(2, 1, bias=False)

    def after(norm: float) -> float:
        model.weight.grad = torch.tensor([[norm, 0.0]])
        clip.on_after_backward(None, model)
        return float(model.weight.grad.norm())

    for i in range(25):
        assert after(1.0 + 0.1 * (i % 2)) == pytest.approx(1.0 + 0.1 * (i % 2))
    assert clip.mean == pytest.approx(1.048)
    assert after(1.1) == pytest.approx(1.1)
    assert 1.0 < after(50.0) < 1.1
    assert math.isnan(after(float("nan")))  # and its mean is lost, as upstream


def test_watching_early_lets_a_log_step_fall_into_the_window():
    model, seen = build("mlp"), []

    class Logger:
        def watch(self, model: nn.Module, **given: Any) -> None:
            assert given["log_freq"] == 100
            for p in model.parameters():
                p.register_hook(lambda grad: seen.append(grad.shape))

    peers.watch(model, Logger(), 100, advance=3)
    assert len(seen) == 3 * 4
    assert all(p.grad is None for p in model.parameters())


def test_variants_are_chosen_by_group_and_by_name():
    names = [variant.name for variant in overhead.chosen(["ours", "ZClip *"])]
    assert names[:3] == [PLAIN, AGAIN, WHOLE]
    assert names[-1] == "ZClip *"
    assert len(overhead.chosen([])) == len(VARIANTS)
    with pytest.raises(ValueError, match="'our' is none of"):
        overhead.chosen(["our"])


def test_our_frames_are_known_by_their_folder():
    assert memory._part(["/x/numpy/core.py", "/x/lightning_gradwatch/probe/probe.py"]) == "probe"
    assert memory._part(["/x/lightning_gradwatch/history.py"]) == "history"
    assert memory._part(["/x/torch/nn.py"]) == ""


def test_a_whole_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(overhead, "RESULTS", tmp_path / "overhead.md")
    chosen = ["GradWatch()", ".item() loop", "self.log_dict(grad_norm)", "inside"]
    arguments = ["--models", "mlp", "--rounds", "1", "--steps", "4", "--no-memory", "--save"]
    overhead.main([*arguments, "--variants", *chosen])
    shown = capsys.readouterr()
    assert "plain (again)" in shown.out
    text = (tmp_path / "overhead.md").read_text(encoding="utf-8")
    assert text.startswith("# What watching costs\n\n`python -m benchmarks.overhead --models mlp")
    rows = [line for line in text.splitlines() if line.startswith("| GradWatch() |")]
    assert len(rows) == 3
    assert all(" ±" in row for row in rows)
    for name in (BOUND, NORMS_INSIDE, WHOLE_INSIDE):
        assert f"| {name} |" in text
    assert "GradWatch: healthy" not in shown.out  # what trainings print is not the result


def test_the_steps_that_look_closer_are_found_by_their_place():
    usual = [step(1.0) for _ in range(50)]
    places = [(WARM_UP + i) % 50 for i in range(50)]

    def at(*where: int) -> list[Step]:
        return [step(3.0 if place in where else 1.0) for place in places]

    rows = {PLAIN: usual, AGAIN: usual, "norms only": at(0, 1), "norms + flow": at(0, 1)}
    table = sheets._closer({"mlp": figures.sheet([[rows]])})
    assert [row[1] for row in table.rows] == ["2000.00 ms (200 %)", "0.00 ms (0 %)", "-"]
