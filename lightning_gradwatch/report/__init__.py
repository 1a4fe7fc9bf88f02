"""What a run looked like and what was wrong with it, as text, markdown, JSON or in colour."""

from __future__ import annotations

from lightning_gradwatch.report.block import Block
from lightning_gradwatch.report.interventions import Intervention
from lightning_gradwatch.report.report import Report
from lightning_gradwatch.report.series import Series

__all__ = ["Block", "Intervention", "Report", "Series"]
