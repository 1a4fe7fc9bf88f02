"""The report of a run: plain data, shown as text, markdown, JSON, HTML or in colour."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.recording.jsonsafe import json_safe
from lightning_gradwatch.report.block import Block
from lightning_gradwatch.report.blocks import build_blocks
from lightning_gradwatch.report.grouping import ROWS
from lightning_gradwatch.report.interventions import Intervention, merge_actions
from lightning_gradwatch.report.markdown import to_markdown
from lightning_gradwatch.report.series import Series
from lightning_gradwatch.report.source import Source
from lightning_gradwatch.report.text import to_text
from lightning_gradwatch.report.verdict import headline, idle, verdict

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lightning_gradwatch.recording.recording import Recording


@dataclass(frozen=True)
class Report:
    """What GradWatch has to say of a run.

    Attributes:
        findings: Merged over the run, worst first.
        blocks: The model block by block, in order of execution.
        interventions: What the actions did, one entry for each action.
        steps: Optimizer steps recorded.
        first_step: First of them; -1 without any.
        last_step: Last of them; -1 without any.
        epochs: Epochs begun; 0 if unknown.
        parameters: Number of watched parameters (tensors).
        elements: Number of scalars in them.
        layers: Number of layers that own them.
        first_loss: First finite loss; NaN without any.
        last_loss: Last finite loss; NaN without any.
        config: GradWatch's arguments, as plain values.
        environment: Versions, device, strategy, precision.
        problems: What could not be read or written, one sentence each.
        idle: Why nothing can have been learnt, whatever was found; empty if something can.
        source: The run itself, which the view in the HTML file is drawn from.

    Example:
        >>> from lightning_gradwatch.history import History
        >>> from lightning_gradwatch.testing import make_sample
        >>> history = History()
        >>> for step in range(4):
        ...     history.append(make_sample(step, {"net.0.weight": 1.0, "net.2.weight": 3.0}))
        >>> report = Report.build(history)
        >>> report.healthy, report.verdict
        (True, 'healthy')
        >>> [(block.name, block.maximum) for block in report.blocks]
        [('net.0', 1.0), ('net.2', 3.0)]
    """

    findings: tuple[Finding, ...] = ()
    blocks: tuple[Block, ...] = ()
    interventions: tuple[Intervention, ...] = ()
    steps: int = 0
    first_step: int = -1
    last_step: int = -1
    epochs: int = 0
    parameters: int = 0
    elements: int = 0
    layers: int = 0
    first_loss: float = float("nan")
    last_loss: float = float("nan")
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    idle: str = ""
    source: Source = field(default_factory=Source, repr=False, compare=False)

    @classmethod
    def build(
        cls,
        series: Series,
        findings: Iterable[Finding] = (),
        actions: Iterable[ActionRecord] = (),
        *,
        epochs: int = 0,
        config: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        problems: Iterable[str] = (),
        folder: Path | None = None,
    ) -> Report:
        """Build a report from a live `History` or from a `Recording` read back from disk.

        Args:
            series: The run's arrays.
            findings: What was found, merged over the run.
            actions: What the actions did, in order.
            epochs: Epochs begun; 0 if unknown.
            config: GradWatch's arguments.
            environment: Versions and devices.
            problems: What could not be read or written.
            folder: Where the run is recorded, if it is.
        """
        found = tuple(sorted(findings, key=lambda f: (-f.severity, f.first_step)))
        actions = tuple(actions)
        steps, layout = series.steps, series.layout
        losses = series.loss[np.isfinite(series.loss)]
        return cls(
            findings=found,
            blocks=build_blocks(series, found),
            interventions=merge_actions(actions),
            steps=int(series.recorded),
            first_step=int(steps.min()) if len(steps) else -1,
            last_step=int(steps.max()) if len(steps) else -1,
            epochs=epochs,
            parameters=len(layout.parameters),
            elements=sum(layout.numel),
            layers=len(layout.layers),
            first_loss=float(losses[0]) if len(losses) else float("nan"),
            last_loss=float(losses[-1]) if len(losses) else float("nan"),
            config=dict(config or {}),
            environment=dict(environment or {}),
            problems=tuple(problems),
            idle=idle(series.layer_max, series.layer_nonfinite) if len(steps) else "",
            source=Source(series, actions, folder),
        )

    @classmethod
    def from_recording(cls, recording: Recording) -> Report:
        """Build the report of a run that `read_recording` read back."""
        return cls.build(
            recording,
            recording.findings,
            recording.actions,
            epochs=recording.epochs,
            config=recording.config,
            environment=recording.environment,
            problems=recording.problems,
            folder=recording.folder,
        )

    @property
    def healthy(self) -> bool:
        """Whether there is no finding of severity WARNING or higher, and a gradient to judge by."""
        return not self.idle and all(f.severity < Severity.WARNING for f in self.findings)

    @property
    def verdict(self) -> str:
        """What is wrong, in a few words; `healthy` if nothing is."""
        return verdict(self)

    @property
    def headline(self) -> str:
        """The verdict, the worst finding and the first thing to try, in one line."""
        return headline(self)

    def __str__(self) -> str:
        """Return the report as plain text."""
        return to_text(self)

    def __rich__(self) -> RenderableType:
        """Return what rich prints: a panel with the diagnosis, and the table in colour."""
        from lightning_gradwatch.report.rich_view import RichReport

        return RichReport(self)

    def to_text(self, *, width: int = 100, rows: int = ROWS, ascii_only: bool = False) -> str:
        """Return the report as plain text.

        Args:
            width: Columns to fill.
            rows: Most blocks to show; sick ones come first.
            ascii_only: Draw and write in ASCII only, for terminals that have no more.
        """
        return to_text(self, width=width, rows=rows, ascii_only=ascii_only)

    def to_markdown(self) -> str:
        """Return the report as GitHub-flavoured markdown."""
        return to_markdown(self)

    def to_html(self) -> str:
        """Return one HTML file with the whole view in it, which opens offline."""
        from lightning_gradwatch.report.markup import to_html

        return to_html([self], self.source.runs(self))

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the diagnosis and the table."""
        from lightning_gradwatch.report.markup import fragment

        return fragment(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python types, fit for strict JSON.

        Numbers that could not be measured are None; infinite ones are the string `"Infinity"`.
        """
        data: dict[str, Any] = json_safe(
            {
                "verdict": self.verdict,
                "healthy": self.healthy,
                "findings": [finding.to_dict() for finding in self.findings],
                "blocks": [block.to_dict() for block in self.blocks],
                "actions": [entry.to_dict() for entry in self.interventions],
                "steps": self.steps,
                "first_step": self.first_step,
                "last_step": self.last_step,
                "epochs": self.epochs,
                "parameters": self.parameters,
                "elements": self.elements,
                "layers": self.layers,
                "first_loss": None if np.isnan(self.first_loss) else self.first_loss,
                "last_loss": None if np.isnan(self.last_loss) else self.last_loss,
                "config": dict(self.config),
                "environment": dict(self.environment),
                "problems": list(self.problems),
            }
        )
        return data

    def _to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, path: str | Path) -> Path:
        """Write the report to a file, in the format that its suffix names.

        Args:
            path: A file that ends in `.txt`, `.md`, `.json` or `.html`.

        Returns:
            The path.

        Raises:
            ValueError: Another suffix; the message names the choices.
            OSError: The file cannot be written.
        """
        path = Path(path)
        writers: dict[str, Callable[[], str]] = {
            ".txt": lambda: str(self) + "\n",
            ".md": self.to_markdown,
            ".json": self._to_json,
            ".html": self.to_html,
        }
        if path.suffix.lower() not in writers:
            raise ValueError(
                f"cannot save a report as {str(path)!r}: its suffix {path.suffix!r} is none of "
                f"{', '.join(writers)}"
            )
        path.write_text(writers[path.suffix.lower()](), encoding="utf-8", errors="replace")
        return path
