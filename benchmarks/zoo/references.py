"""What a competent model reaches on every task: measured once, stored beside this file.

python -m benchmarks.zoo.references
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from benchmarks.zoo.config import Config
from benchmarks.zoo.tasks import TASKS, raw_task
from benchmarks.zoo.train import measure
from benchmarks.zoo.truth import REFERENCES

#: Losses besides the task's own that cases use.
OTHERS = {"class": ("hinge", "onehot_mse"), "regression": ("huber", "mae")}


def competent(task: str) -> list[Config]:
    """Return configs of which the best is called competent."""
    base = Config(task, steps=400, batch=32, schedule="cosine")
    if task.startswith(("recall", "adding", "waves")):
        return [
            replace(base, arch="rnn", cell=cell, depth=1, forget=2.0, lr=lr)
            for cell in ("gru", "lstm")
            for lr in (5e-3, 1e-2)
        ]
    if task.startswith("text"):
        return [
            replace(base, arch="transformer", norm="pre", depth=2, lr=lr) for lr in (3e-3, 6e-3)
        ]
    if task.startswith("bag"):
        return [replace(base, arch="bag", depth=1, lr=1e-2)]
    if task.startswith("ring"):
        return [replace(base, arch="gan", depth=2, lr=lr, momentum=0.5, batch=64, steps=400,
                        schedule="constant") for lr in (1e-3, 3e-3, 5e-3)]  # fmt: skip
    if task in ("images", "bars"):
        return [replace(base, arch="cnn", depth=3, width=12, norm="batch", lr=5e-3)]
    return [replace(base, depth=2, width=48, lr=lr) for lr in (5e-3, 1e-2)]


def main() -> None:
    """Measure all of them."""
    table = {}
    for task in TASKS:
        for loss in ("", *OTHERS.get(raw_task(task).kind, ())):
            if loss and competent(task)[0].arch not in ("mlp", "cnn"):
                continue
            reached = []
            for config in competent(task):
                looks = measure(replace(config, loss=loss)).looks
                reached.append(float(np.median([k.loss for k in looks if k.step >= 320])))
            table[f"{task}/{loss}" if loss else task] = round(min(reached), 4)
            print(task, loss, [round(r, 4) for r in reached], flush=True)
    REFERENCES.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
