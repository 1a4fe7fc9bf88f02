"""What every action must do, put to each of them."""

from __future__ import annotations

import copy
import importlib
import inspect
import math
import pickle
import pkgutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

import lightning_gradwatch.actions as package
from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.actions import Action, StatefulAction
from lightning_gradwatch.finding import Finding
from tests.actions.steps import (
    EXPLODING,
    NONFINITE,
    Ranks,
    same,
    through_checkpoint,
    training_for,
)

FOLDER = tempfile.TemporaryDirectory()
MAKE: dict[str, Callable[..., Any]] = {
    "AdaptiveClip": lambda: package.AdaptiveClip(1e3, exclude=()),
    "AutoClip": lambda: package.AutoClip(50, history=4),
    "ClipGradNorm": lambda: package.ClipGradNorm(1e3),
    "ClipGradValue": lambda: package.ClipGradValue(1e3),
    "DecayLR": lambda **a: package.DecayLR(cooldown=2, **a),
    "Rollback": lambda **a: package.Rollback(every_n_steps=2, max_times=2, **a),
    "SaveBatch": lambda **a: package.SaveBatch(folder=FOLDER.name, **a),
    "SkipStep": lambda **a: package.SkipStep(max_consecutive=3, **a),
    "StopTraining": lambda **a: package.StopTraining(**a),
    "ZClip": lambda: package.ZClip(z_threshold=1e3, warmup_steps=2),
}
EVERY = pytest.mark.parametrize("name", MAKE)
SICKNESS = (EXPLODING, NONFINITE, [], NONFINITE, EXPLODING, [], [], NONFINITE, NONFINITE)


def public_actions() -> dict[str, type]:
    """Every class with an `apply` that a module of the package defines."""
    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for name, cls in inspect.getmembers(module, inspect.isclass):
            if cls.__module__ == module.__name__ and hasattr(cls, "apply"):
                found[name] = cls
    return found


def train(action: Any, batches: Sequence[Sequence[Finding]], scale: float = 1.0) -> Any:
    """A small run in which the action sees a finding at some steps; returns its whole end.

    From step 3 on the loss is `scale` times as large.
    """
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    adam = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 20)
    records = []
    for step, found in enumerate(batches):
        adam.zero_grad()
        factor = scale if step >= 3 else 1.0
        (model(torch.randn(16, 4)).square().mean() * factor).backward()
        if action is not None:
            training = training_for(adam, step=step, schedulers=[scheduler])
            records.append(action.apply(found, training))
        adam.step()
        scheduler.step()
    weights = [p.detach().clone() for p in model.parameters()]
    return weights, [g["lr"] for g in adam.param_groups], torch.get_rng_state(), records


def test_every_action_is_listed_and_tried_here() -> None:
    protocols = {"Action", "StatefulAction"}
    assert set(public_actions()) - protocols == set(MAKE)
    others = {"SavedBatch", "Training", "load_batch", "rescue"}
    assert set(MAKE) | protocols | others == set(package.__all__)


@EVERY
def test_nonfinite_gradients_do_not_break_it(name: str) -> None:
    for poison in (math.nan, math.inf, -math.inf):
        for found in (NONFINITE, []):
            weight = nn.Parameter(torch.ones(2))
            weight.grad = torch.tensor([poison, 0.5])
            sgd = torch.optim.SGD([weight], lr=0.1)
            record = MAKE[name]().apply(found, training_for(sgd))
            assert record is None or isinstance(record, ActionRecord)


@EVERY
@pytest.mark.parametrize("present", [True, False])
def test_a_healthy_run_is_bit_identical_to_one_without_it(name: str, present: bool) -> None:
    if name == "AutoClip":
        pytest.skip("it clips every run, as it is meant to")
    # With findings of another code too: only its own may set an action off.
    found = [Finding("my.code", EXPLODING[0].severity, (), 0, 0)] if present else []
    with_it, without = train(MAKE[name](), [found] * 8), train(None, [[]] * 8)
    assert all(torch.equal(a, b) for a, b in zip(with_it[0], without[0], strict=True))
    assert with_it[1] == without[1]
    assert torch.equal(with_it[2], without[2])
    assert with_it[3] == [None] * 8


@EVERY
def test_what_it_does_it_says(name: str) -> None:
    """A sick run is changed exactly at the steps that have a record, in plain Python types."""
    records = train(MAKE[name](), SICKNESS, scale=1e6)[3]
    assert any(records)
    for step, record in enumerate(records):
        if record is not None:
            assert (record.action, record.step) == (name, step)
            assert len(record.reason) > 5
            assert [type(v) for v in record.to_dict().values()] == [str, int, str, float, float]


@EVERY
def test_a_resumed_run_decides_as_an_uninterrupted_one(name: str) -> None:
    def begin() -> tuple[nn.Parameter, torch.optim.SGD]:
        weight = nn.Parameter(torch.ones(2))
        return weight, torch.optim.SGD([weight], lr=0.1)

    def decisions(action: Any, run: Any, start: int, end: int) -> list[tuple[Any, bool, bool]]:
        weight, sgd = run
        out = []
        for step in range(start, end):
            weight.grad = torch.full((2,), 1e4)
            training = training_for(sgd, step=step)
            record = action.apply(SICKNESS[step], training)
            out.append((record and record.reason, training.skipped, training.stopped))
        return out

    whole = decisions(MAKE[name](), begin(), 0, len(SICKNESS))
    for cut in range(len(SICKNESS)):
        first, second, run = MAKE[name](), MAKE[name](), begin()
        begun = decisions(first, run, 0, cut)
        if isinstance(first, StatefulAction):
            second.load_state_dict(through_checkpoint(first.state_dict()))
        assert begun + decisions(second, run, cut, len(SICKNESS)) == whole


@EVERY
def test_state_is_complete_or_absent(name: str) -> None:
    action = MAKE[name]()
    assert isinstance(action, Action)
    methods = [hasattr(action, m) for m in ("state_dict", "load_state_dict", "reset")]
    assert all(methods) or not any(methods)
    if isinstance(action, StatefulAction):
        fresh = action.state_dict()
        train(action, SICKNESS)
        assert not same(action.state_dict(), fresh)
        action.reset()
        assert same(action.state_dict(), fresh)


@EVERY
def test_every_rank_votes_as_often_as_the_others(name: str) -> None:
    """A collective that one rank leaves out hangs all the others.

    They have the codes that were found in common, overflows, the mean loss and what was voted
    before; gradients may be NaN on one of them alone.
    """
    votes = []
    for own in (1e4, math.nan, math.inf):
        action, calls = MAKE[name](), []
        weight = nn.Parameter(torch.ones(2))
        sgd = torch.optim.SGD([weight], lr=0.1)
        for found in SICKNESS:
            for overflow in (False, True):
                ranks = Ranks(others=True)
                weight.grad = torch.full((2,), own)
                action.apply(found, training_for(sgd, ranks=ranks, amp_overflow=overflow))
                calls.append(ranks.calls)
        votes.append(calls)
    assert votes[0] == votes[1] == votes[2]
    assert all(n <= 2 for n in votes[0])


@EVERY
def test_codes_are_checked_where_there_are_any(name: str) -> None:
    if "on" not in inspect.signature(public_actions()[name]).parameters:
        return
    with pytest.raises(ValueError, match=r"on=\('nope',\): unknown finding code 'nope'"):
        MAKE[name](on=("nope",))
    assert MAKE[name](on=["spike"]).on == ("spike",)


@EVERY
def test_repr_shows_every_argument_and_rebuilds_it(name: str) -> None:
    action = MAKE[name]()
    for argument in inspect.signature(type(action)).parameters:
        assert f"{argument}={getattr(action, argument)!r}" in repr(action)
    assert repr(eval(repr(action), vars(package))) == repr(action)


@EVERY
def test_copies_and_pickles(name: str) -> None:
    action = MAKE[name]()
    train(action, SICKNESS)
    for copied in (copy.deepcopy(action), pickle.loads(pickle.dumps(action))):
        assert repr(copied) == repr(action)
        if isinstance(action, StatefulAction):
            assert same(copied.state_dict(), action.state_dict())


@EVERY
def test_the_command_line_parser_builds_it(name: str) -> None:
    jsonargparse = pytest.importorskip("jsonargparse")
    action = MAKE[name]()
    arguments = {p: getattr(action, p) for p in inspect.signature(type(action)).parameters}
    arguments = {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()}
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--actions", type=Sequence[Action])
    spec = [{"class_path": f"lightning_gradwatch.actions.{name}", "init_args": arguments}]
    build = getattr(parser, "instantiate", None) or parser.instantiate_classes
    built = build(parser.parse_object({"actions": spec})).actions
    assert repr(built[0]) == repr(action)
