"""From findings to few statements: what, where, the likely cause, and what to try.

`diagnosis.py` merges the findings of single steps over the run; `causes.py` and `remedies.py` are
tables of sentences, chosen by what `case.py` knows of the model. A new finding code adds an entry
to both tables, and to `MEASURES` in `merging.py` if its occurrences can be compared.
"""

from __future__ import annotations

from lightning_gradwatch.diagnosis.diagnosis import Diagnosis

__all__ = ["Diagnosis"]
