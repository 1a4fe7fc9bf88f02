"""Results of trials, kept from run to run: only what may have changed is trained again."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.saving.patients import Patient
from benchmarks.saving.policies import Policy
from benchmarks.saving.trial import Result

BENCHMARKS = Path(__file__).parent.parent

#: Raised when what is measured changes, so that everything is measured again.
VERSION = 1


@functools.cache
def code() -> str:
    """Return a hash of the package's source: what our actions and detectors do depends on it."""
    digest = hashlib.sha256()
    for path in sorted((BENCHMARKS.parent / "lightning_gradwatch").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def path_of(patient: Patient, policy: Policy, seed: int) -> Path:
    """Return where the result of a trial lies; not under version control."""
    ours = code() if policy.actions else ""
    how = replace(policy, name="")  # whatever it is called
    text = f"{VERSION}{torch.__version__}{patient.digest()}{how}{seed}{ours}"
    name = hashlib.sha256(text.encode()).hexdigest()[:24]
    return BENCHMARKS / ".cache" / "rescue" / f"{name}.json"


def read(patient: Patient, policy: Policy, seed: int) -> Result | None:
    """Return the result of a trial if it is known."""
    path = path_of(patient, policy, seed)
    return Result(**json.loads(path.read_text())) if path.exists() else None


def write(patient: Patient, policy: Policy, seed: int, result: Result) -> None:
    """Keep the result of a trial."""
    path = path_of(patient, policy, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(result)))
    temporary.replace(path)
