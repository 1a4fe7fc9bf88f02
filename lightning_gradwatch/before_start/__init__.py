"""The diagnosis before training: a few passes over one real batch, judged, and no trace left.

`losses.py` gets a loss from a model and a batch, `passes.py` makes samples of passes, `judge.py`
reads them as what they are (a beginning, on one batch), and `check.py` is `preflight`.
"""

from __future__ import annotations
