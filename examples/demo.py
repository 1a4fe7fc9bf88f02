"""Train a deep sigmoid network twice, sick and cured by one switch, and compare what is found.

This is what `make demo` runs. The cure is the first remedy that the MLP example proposes for what
GradWatch found in the sick run, so that the whole path is walked: record, detect, advise, heal.

    python -m examples.demo
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started as `python examples/demo.py`
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import shlex

from examples import mlp
from examples.options import quiet, tool
from examples.result import Result, diagnosis, next_steps, runs_folder, score


def main(argv: Sequence[str] = ()) -> tuple[Result, Result]:
    """Run both; return the sick result and the cured one.

    Args:
        argv: Switches of `examples.mlp` for both runs, such as `["--quick"]`.
    """
    quiet()
    parser = mlp.make_arguments()
    print("1. Six sigmoid layers, plain SGD, as it was done until 2006:\n")
    args = parser.parse_args(list(argv))
    sick = mlp.train(args)

    line, why = next_steps(parser, args, sick, mlp.REMEDIES)[0]
    words = shlex.split(line)
    cure = words[words.index("examples.mlp") + 1 :]
    print(f"\n2. The same, with {shlex.join(cure)}: {why}:\n")
    cured = mlp.train(parser.parse_args(cure))

    for name, result in (("sick", sick), ("cured", cured)):
        print(f"\n{name}: {score(result)}")
        print("\n".join(f"  {found}" for found in diagnosis(result.watch)))
    folder = runs_folder(args, sick)
    print(f"\nSee both runs side by side:\n  {tool('tensorboard')} --logdir {folder}")
    print(f"Try the other remedies:\n  {tool('python')} -m examples.mlp --help")
    return sick, cured


if __name__ == "__main__":
    main(sys.argv[1:])
