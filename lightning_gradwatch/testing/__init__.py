"""Tools to test a detector of your own without training anything.

`make_sample` and `make_flow` build what a detector is shown, `deliver` hands each weight change to
the next sample as in a real run, `replay` collects what the detector says, and `check_detector`
puts it through the trials that every built-in detector passes.

`samples.py` and `flows.py` build single samples, `rehearsal.py` whole runs of a small network,
`runs.py` the runs of the trials, `findings.py` and `conformance.py` the trials themselves.
"""

from __future__ import annotations

from lightning_gradwatch.testing.conformance import DETECTOR_CHECKS, check_detector
from lightning_gradwatch.testing.flows import make_flow
from lightning_gradwatch.testing.rehearsal import rehearse
from lightning_gradwatch.testing.samples import deliver, make_sample, replay

__all__ = [
    "DETECTOR_CHECKS",
    "check_detector",
    "deliver",
    "make_flow",
    "make_sample",
    "rehearse",
    "replay",
]
