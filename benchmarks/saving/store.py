"""Results of trials, kept from run to run: only what may have changed is trained again."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.saving.patients import Patient
from benchmarks.saving.policies import Policy
from benchmarks.saving.trial import Result
from benchmarks.zoo.truth import REFERENCES

BENCHMARKS = Path(__file__).parent.parent

#: Raised when what is measured changes, so that everything is measured again.
VERSION = 1


#: What decides a run besides its config; the catalogues only list configs.
_RUN = (
    *(f"zoo/{name}.py" for name in ("faults", "models", "nets", "probe", "tasks")),
    *(f"zoo/{name}.py" for name in ("train", "truth", "weights")),
    *(f"saving/{name}.py" for name in ("accidents", "trial")),
)


class _Bare(ast.NodeTransformer):
    """Leaves docstrings out; comments and line breaks are no part of a tree anyway."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        said = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if said else node


def digest_of(sources: Iterable[str]) -> str:
    """Return a short hash of what Python sources do; none of what they say about it.

    Example:
        >>> digest_of(["x = 1  # one"]) == digest_of(["x = 1"]) != digest_of(["x = 2"])
        True
    """
    digest = hashlib.sha256()
    for source in sources:
        digest.update(ast.dump(_Bare().visit(ast.parse(source))).encode())
    return digest.hexdigest()[:12]


@functools.cache
def code() -> str:
    """Return a hash of the package's source: what our actions and detectors do depends on it."""
    paths = sorted((BENCHMARKS.parent / "lightning_gradwatch").rglob("*.py"))
    return digest_of(path.read_text(encoding="utf-8") for path in paths)


@functools.cache
def runs() -> str:
    """Return a hash of all that a run is made of and judged by, whatever the policy."""
    sources = digest_of((BENCHMARKS / name).read_text(encoding="utf-8") for name in _RUN)
    return sources + hashlib.sha256(REFERENCES.read_bytes()).hexdigest()[:12]


def path_of(patient: Patient, policy: Policy, seed: int) -> Path:
    """Return where the result of a trial lies; not under version control."""
    ours = code() if policy.actions else ""
    how = replace(policy, name="")  # whatever it is called
    text = f"{VERSION}{torch.__version__}{runs()}{patient.digest()}{how}{seed}{ours}"
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
