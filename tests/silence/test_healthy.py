"""Nothing alarming is said of models that learn: of none of the many that people train."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.silence.case import Trial, run
from tests.silence.healthy import CASES


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_nothing_is_said_of_a_model_that_learns(make: Callable[[], Trial]) -> None:
    outcome = run(make)
    assert outcome.score >= outcome.at_least, "this run is not healthy"
    assert not [f"{f.code}: {f.summary}" for f in outcome.told]
    assert outcome.watch.healthy
