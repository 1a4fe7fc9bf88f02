"""Several gloo processes that go through many scenarios, so that start-up is paid for once.

    python -m tests.distributed.session tests.distributed.ddp_scenarios 2 FOLDER

One process imports everything and forks the ranks, which find each other through a file: no port.
Each scenario returns what its rank saw, as JSON. A collective that some rank does not reach ends
in an error after `PATIENCE`, and the session with it.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
import traceback
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = timedelta(seconds=30)


def play(module: str, ranks: int, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Run a session; return for each scenario the stories of all ranks."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.distributed.session", module, str(ranks), str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=240, check=False, cwd=ROOT,
    )  # fmt: skip
    errors = [p.read_text() for p in sorted(folder.glob("error-*.txt"))]
    assert done.returncode == 0, "\n".join([*errors, done.stderr[-3000:]])
    names = json.loads((folder / "scenarios.json").read_text())
    return {
        name: [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(ranks)]
        for name in names
    }


def _be(rank: int, ranks: int, module: Any, folder: Path) -> None:
    # What torchrun sets, so that Lightning starts no processes of its own.
    told = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": ranks,
            "LOCAL_WORLD_SIZE": ranks, "TORCHELASTIC_RUN_ID": "test",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # fmt: skip
    os.environ.update({key: str(value) for key, value in told.items()})
    store = dist.FileStore(str(folder / "store"), ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=PATIENCE)
    name = ""
    try:
        for name, scenario in module.SCENARIOS.items():
            torch.manual_seed(0)
            begin = time.perf_counter()
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                place = folder / name
                place.mkdir(exist_ok=True)
                story = scenario(place)
            story["said"] = [str(w.message) for w in said if "GradWatch" in str(w.message)]
            story["seconds"] = time.perf_counter() - begin
            (folder / f"{name}-{rank}.json").write_text(json.dumps(story))
    except BaseException:
        (folder / f"error-{rank}.txt").write_text(f"{name}, {rank=}\n{traceback.format_exc()}")
        os._exit(1)  # at once: the others may wait in a collective
    dist.barrier()
    dist.destroy_process_group()


def main(module: str, ranks: int, folder: Path) -> None:
    """Fork the ranks and wait for them."""
    torch.set_num_threads(1)
    scenarios = importlib.import_module(module)
    (folder / "scenarios.json").write_text(json.dumps(list(scenarios.SCENARIOS)))
    fork = multiprocessing.get_context("fork")
    processes = [
        fork.Process(target=_be, args=(rank, ranks, scenarios, folder)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in processes))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
