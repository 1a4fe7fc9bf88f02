"""The rules of the field, written anew from what was published, to be scored beside our own."""

from __future__ import annotations

from benchmarks.rivals import autotrainer, deepdiagnosis, sagemaker, thresholds
from benchmarks.rivals.rule import Rule

RULES: tuple[Rule, ...] = (
    thresholds.RULE,
    sagemaker.CORE,
    sagemaker.ALL,
    deepdiagnosis.RULE,
    autotrainer.RULE,
)

__all__ = ["RULES", "Rule"]
