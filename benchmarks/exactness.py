"""How far float32 norms are from float64: torch's own, and ours.

python -m benchmarks.exactness
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_gradwatch.probe.host import Host
from lightning_gradwatch.probe.norms import NormReader


def main() -> None:
    """Print a table in markdown: relative error of the 2-norm of one gradient."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    cases: dict[str, Tensor] = {
        "50 million, float32": torch.randn(50_000_000),
        "1 million, bfloat16": torch.randn(1_000_000).bfloat16(),
        "1000, around 1e-20": torch.randn(1000) * 1e-20,
        "1000, around 1e-25": torch.randn(1000) * 1e-25,
        "1000, around 1e20": torch.randn(1000) * 1e20,
    }
    print("| gradient | torch, relative error | GradWatch, relative error |")
    print("| --- | --- | --- |")
    for name, grad in cases.items():
        # Chunks, so that the reference needs no float64 copy of everything.
        truth = math.sqrt(sum(float(c.double().square().sum()) for c in grad.split(1_000_000)))
        plain = float(torch.linalg.vector_norm(grad, dtype=torch.float32))
        ours = float(NormReader(Host()).read([grad], [0])[0][0])
        print(f"| {name} | {abs(plain / truth - 1):.0e} | {abs(ours / truth - 1):.0e} |")


if __name__ == "__main__":
    main()
