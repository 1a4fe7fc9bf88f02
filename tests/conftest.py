"""What every test starts from: one thread, fixed seeds, quiet logs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
import torch

from lightning_gradwatch import native


@pytest.fixture(autouse=True)
def _steady() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


@pytest.fixture(scope="module", params=["compiled", "torch"])
def each_reader(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the tests of a module with the compiled reader of norms, and with torch alone."""
    if request.param == "compiled" and native.compiled is None:
        if os.environ.get("GRADWATCH_NATIVE_REQUIRED"):
            pytest.fail("a C compiler is at hand, and yet the reader was not built or not loaded")
        pytest.skip("the compiled reader was not built, or this torch is too old for it")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr(native, "compiled", None)
        yield request.param
