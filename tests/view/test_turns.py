"""Optimizers that take turns: what a layer's own optimizer said last is what the layer shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightning_gradwatch.history import History
from lightning_gradwatch.recording import RecordingWriter
from lightning_gradwatch.testing import make_sample
from lightning_gradwatch.view.answers import at_step, bins
from lightning_gradwatch.view.cells import ABSENT, NO_GRADIENT, Values
from lightning_gradwatch.view.live import from_history
from lightning_gradwatch.view.message import decode
from lightning_gradwatch.view.run import RecordedRun
from lightning_gradwatch.view.shown import Shown
from lightning_gradwatch.view.turns import Turns


def gan(steps: int):
    """Two networks by turns; a layer of the second is frozen, and one of the first now and then."""
    for t in range(steps):
        mine, other = ("g", "d") if t % 2 == 0 else ("d", "g")
        norms: dict[str, float | None] = {
            f"{mine}.0.weight": float(t),
            f"{mine}.1.weight": float(t) if t % 10 else None,
            f"{other}.0.weight": None,
            f"{other}.1.weight": None,
            "frozen.weight": None,
        }
        yield make_sample(t, dict(sorted(norms.items())), optimizer=t % 2, loss=float(t), lr=0.1)


def plane_of(run: Shown, **window: int) -> Values:
    return decode(bins(run, "x", most=8192, **window))[1][0]


def recorded(folder: Path, steps: int = 60) -> RecordedRun:
    writer = RecordingWriter(folder, buffer_rows=8)
    for sample in gan(steps):
        writer.add(sample)
    writer.close([])
    run = RecordedRun(folder)
    run.refresh(None)
    return run


def test_another_optimizers_turn_is_nothing_measured(tmp_path: Path):
    run = recorded(tmp_path)
    live = History()
    for sample in gan(60):
        live.append(sample)
    assert run.layout.layers == ("d.0", "d.1", "frozen", "g.0", "g.1")
    for shown in (run, from_history(live)):
        first, second, frozen, other, sometimes = plane_of(shown, start=20, stop=29)
        assert first.tolist() == [ABSENT, 21, ABSENT, 23, ABSENT, 25, ABSENT, 27, ABSENT, 29]
        assert second[1] == 21
        assert (frozen == NO_GRADIENT).all()
        assert other[:2].tolist() == [20, ABSENT]
        assert sometimes[:3].tolist() == [NO_GRADIENT, ABSENT, 22]


def test_a_pinned_step_has_every_layer_with_the_step_it_is_of(tmp_path: Path):
    run = recorded(tmp_path)
    found = at_step(run, "x", 33, layer=3)
    assert found["step"] == 33
    norms = found["series"]["grad_norm"]
    assert norms["values"] == [33.0, 33.0, "none", 32.0, 32.0]
    assert norms["earlier"] == {"3": 32, "4": 32}
    assert [p["grad_norm"] for p in found["parameters"]] == [32.0]
    assert at_step(run, "x", 20, layer=4)["parameters"][0]["grad_norm"] == "none"
    assert at_step(run, "x", 20)["series"]["grad_norm"]["values"][4] == "none"
    # Nobody looks into the future.
    assert at_step(run, "x", 0)["series"]["grad_norm"]["values"][0] is None


def test_a_single_optimizer_leaves_no_gradient_what_it_is():
    values = np.array([[1.0, NO_GRADIENT], [NO_GRADIENT, NO_GRADIENT]], np.float32)
    turns = Turns()
    assert turns.mark(values, np.array([0, 0])) is values
    assert not turns.several
    shared = np.array([[1.0, 2.0], [NO_GRADIENT, 3.0], [4.0, NO_GRADIENT]], np.float32)
    # The second row's optimizer does not train the first layer; both train the second one.
    marked = turns.mark(shared, np.array([0, 1, 0]))
    assert marked.tolist() == [[1.0, 2.0], [-np.inf, 3.0], [4.0, NO_GRADIENT]]


def test_nan_counts_as_trained():
    values = np.array([[np.nan, NO_GRADIENT], [NO_GRADIENT, np.inf]], np.float32)
    marked = Turns().mark(values, np.array([0, 1]))
    assert np.isnan(marked[0, 0])
    assert marked.ravel()[1:].tolist() == [-np.inf, -np.inf, np.inf]
