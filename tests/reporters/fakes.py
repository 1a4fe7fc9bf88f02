"""Loggers that remember what they are given."""

from __future__ import annotations

from typing import Any


class PlainLogger:
    """A logger with `log_metrics` and nothing else, as strict as the strictest."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, *, metrics: dict[str, float], step: int) -> None:
        assert type(step) is int
        assert all(type(k) is str and type(v) is float for k, v in metrics.items())
        self.rows.append((step, metrics))


class Writer:
    """A TensorBoard-like experiment."""

    def __init__(self) -> None:
        self.layouts: list[dict[str, Any]] = []
        self.texts: list[tuple[str, str, int]] = []

    def add_custom_scalars(self, layout: dict[str, Any]) -> None:
        self.layouts.append(layout)

    def add_text(self, tag: str, text: str, global_step: int) -> None:
        self.texts.append((tag, text, global_step))


class TextLogger(PlainLogger):
    """A logger with a TensorBoard-like experiment."""

    def __init__(self) -> None:
        super().__init__()
        self.experiment = Writer()


class BrokenLogger(PlainLogger):
    """A logger whose connection has gone, from the given row on."""

    def __init__(self, after: int = 0) -> None:
        super().__init__()
        self.after = after
        self.calls = 0

    def log_metrics(self, *, metrics: dict[str, float], step: int) -> None:
        self.calls += 1
        if self.calls > self.after:
            raise ConnectionError("no route to host")
        super().log_metrics(metrics=metrics, step=step)
