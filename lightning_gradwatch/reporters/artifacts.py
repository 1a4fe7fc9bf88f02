"""The final report as a file of the run, where a logger can keep one: W&B and MLflow."""

from __future__ import annotations

import sys
from typing import Any

from lightning_gradwatch.report import Report

#: Name of the report, in W&B's panels and among MLflow's artifacts.
NAME = "gradwatch/report"


def keep_report(logger: Any, report: Report) -> None:
    """Give a logger the report as one HTML file, if it keeps such things.

    Args:
        logger: Lightning's logger object. Others than W&B's and MLflow's are left alone.
        report: The report on the run.

    Raises:
        Exception: Whatever the logger raises.
    """
    experiment: Any = getattr(logger, "experiment", None)
    # By the package it comes from: stand-ins have attributes of any name.
    package = type(experiment).__module__.partition(".")[0]
    if package == "wandb":
        wandb = sys.modules["wandb"]
        # `inject=False`: the file brings its own styles, and takes none from elsewhere.
        experiment.log({NAME: wandb.Html(report.to_html(), inject=False)})
    elif package == "mlflow":
        experiment.log_text(logger.run_id, report.to_html(), f"{NAME}.html")
