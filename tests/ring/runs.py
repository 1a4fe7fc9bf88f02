"""Whole runs in a bare loop, told as plain values so that two of them can be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from lightning_gradwatch import GradientWatcher
from lightning_gradwatch.probe.wide import wide_norms


class Told:
    """A reporter that writes down everything it is told, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def sample(self, sample: Any) -> None:
        self.events.append(("sample", sample.step, sample.optimizer, numbers(sample)))

    def log(self, sample: Any) -> None:
        self.events.append(("log", sample.step, sample.optimizer, numbers(sample)))

    def finding(self, finding: Any) -> None:
        self.events.append(("finding", finding.to_dict()))

    def action(self, record: Any) -> None:
        self.events.append(("action", record.to_dict()))


def numbers(sample: Any) -> dict[str, Any]:
    """Every number of a sample."""
    flow, update = sample.flow, sample.update
    modules = None if flow is None else flow.modules
    return {
        "grad_norm": sample.grad_norm,
        "layer_grad_norm": sample.layer_grad_norm,
        "has_grad": sample.has_grad,
        "scalars": np.array(
            [sample.global_norm, sample.clipped_norm, sample.loss, sample.lr, sample.amp_overflow]
        ),
        "out_grad_norm": None if modules is None else modules.out_grad_norm,
        "gain": None if modules is None else modules.gain,
        "profiles": [] if flow is None else [p.grad_norm for p in flow.time_profiles],
        "update": None
        if update is None
        else [update.step, update.weight_norm, update.update_norm, update.descent],
        "agreement": None if update is None else update.agreement,
    }


class Net(nn.Module):
    """A dense and a recurrent part, a parameter without dimensions, one that gets no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 5, batch_first=True)
        self.head = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.unused = nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1]) * self.scale


def losses(net: nn.Module, step: int, at: dict[int, float]) -> torch.Tensor:
    """Loss of a step, multiplied by what `at` says."""
    torch.manual_seed(100 + step)
    loss = net(torch.randn(4, 6, 3)).square().mean()
    return loss * at.get(step, 1.0)


def run(
    make: Callable[[nn.Module], Sequence[torch.optim.Optimizer]],
    *,
    steps: int = 40,
    at: dict[int, float] | None = None,
    others_clip: float | None = None,
    scaler: Any = None,
    stop_at: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train and return all that was told, plainly."""
    torch.manual_seed(0)
    net, told = Net(), Told()
    optimizers = make(net)
    scaler = scaler() if scaler is not None else None
    watcher = GradientWatcher(
        net, list(optimizers), scaler=scaler, reporters=[told],
        **{"log_every_n_steps": 13, "flow_every_n_steps": 5, **options},
    )  # fmt: skip
    with watcher:
        ahead = watcher._engine._later
        for step in range(steps):
            if step == stop_at:
                break
            for optimizer in optimizers:
                for other in optimizers:
                    other.zero_grad()
                loss = losses(net, step, at or {})
                (loss if scaler is None else scaler.scale(loss)).backward()
                watcher.step(loss=loss, optimizer=optimizer, step=step)
                if others_clip is not None:
                    nn.utils.clip_grad_norm_(net.parameters(), others_clip)
                if scaler is None:
                    optimizer.step()
                else:
                    scaler.step(optimizer)
                    scaler.update()
        report = watcher.report().to_dict()
    history = watcher.history
    return {
        "events": told.events,
        "history": {
            name: getattr(history, name)
            for name in ("steps", "optimizer", "grad_norm", "has_grad", "global_norm",
                         "clipped_norm", "loss", "lr", "update_ratio")
        },
        "findings": [f.to_dict() for f in watcher.findings],
        "records": [r.to_dict() for r in watcher.actions_taken],
        "report": report,
        "weights": [p.detach().clone() for p in net.parameters()],
        "state": watcher._engine.state_dict(),
        "ring": None if ahead is None else ahead.ring,
    }  # fmt: skip


def read_wide(monkeypatch: Any) -> None:
    """Let the path that waits measure norms as the one that does not: then all is equal bitwise."""
    from lightning_gradwatch.probe.norms import NormReader

    def read(self: Any, grads: Any, keys: Any, extra: Any = ()) -> Any:
        parts = wide_norms(grads, self._p)
        fetched = self._host.fetch([*(vector for _, vector in parts), *extra])
        norms = np.zeros(len(grads))
        for (places, _), vector in zip(parts, fetched[: len(parts)], strict=True):
            norms[places] = vector
        return norms, fetched[len(parts) :]

    def global_norm(self: Any, grads: Any, keys: Any) -> Any:
        from lightning_gradwatch.probe.wide import wide_total

        return wide_total([v for _, v in wide_norms(grads, self._p)], self._p).reshape(1)

    monkeypatch.setattr(NormReader, "read", read)
    monkeypatch.setattr(NormReader, "global_norm", global_norm)


def assert_same(a: Any, b: Any, where: str = "", rel: float = 0.0) -> None:
    """Compare two runs, NaN equal to NaN.

    Args:
        a: One of them.
        b: The other.
        where: Said in the message.
        rel: Relative difference allowed between numbers.
    """
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}", rel)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]", rel)
    elif isinstance(a, (np.ndarray, torch.Tensor, float)):
        x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(x, y, rtol=rel, atol=rel * 1e-3, equal_nan=True, err_msg=where)
    else:
        assert a == b, where
