"""Stock TensorBoard with the tab, in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: What `pip install` makes TensorBoard do by itself: tests run from a checkout as well.
CODE = """
import sys
from tensorboard import default, program
from lightning_gradwatch.tensorboard.plugin import GradWatchPlugin
plugins = [p for p in default.get_plugins() if p is not GradWatchPlugin]
board = program.TensorBoard(plugins=[*plugins, GradWatchPlugin])
board.configure(argv=["tensorboard", *sys.argv[1:]])
sys.exit(board.main())
"""
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(*flags: str, prefix: str = "") -> Iterator[str]:
    """Run `tensorboard FLAGS`; the value is its address, with a slash at the end."""
    port = free_port()
    command = [sys.executable, "-c", CODE, "--host=127.0.0.1", f"--port={port}", *flags]
    if prefix:
        command.append(f"--path_prefix={prefix}")
    board = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    address = f"http://127.0.0.1:{port}{prefix}/"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{address}data/environment", timeout=5).read()
                break
            except (urllib.error.URLError, OSError) as error:
                if board.poll() is not None or time.monotonic() > deadline:
                    board.kill()
                    raise RuntimeError(f"no TensorBoard: {board.communicate()[1]}") from error
                time.sleep(0.1)
        yield address
    finally:
        board.terminate()
        try:
            board.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            board.kill()
            board.communicate()
