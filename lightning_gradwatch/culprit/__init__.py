"""Who produced the first NaN or Inf of a step: found by replaying its batch under instrumentation.

`batches.py` remembers what a replay needs, `undisturbed.py` puts everything back that a replay
changes, `listen.py` watches every operation of it, `blame.py` walks from the damage back to where
it began, `find.py` runs the three, and `tell.py` puts the answer into words.
"""

from __future__ import annotations
