"""The page is open while the run is killed, resumed, and while several tabs ask at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lightning_gradwatch.recording import RecordingWriter, read_recording
from lightning_gradwatch.testing import make_sample
from lightning_gradwatch.view.message import decode
from tests.tensorboard.serving import ROOT
from tests.tensorboard.test_plugin import Page, plugin

WRITER = """
import sys, time
from lightning_gradwatch.recording import RecordingWriter
from lightning_gradwatch.testing import make_sample
writer = RecordingWriter(sys.argv[1], buffer_rows=3)
first = make_sample(0, [1.0] * 50)
for step in range(1_000_000):
    writer.add(make_sample(step, [1.0 + step] * 50, layout=first.layout))
    if step % 100 == 0:
        time.sleep(0.01)
"""


def test_killed_while_several_tabs_look_on(tmp_path: Path):
    folder = tmp_path / "version_0" / "gradwatch"
    page = Page(plugin(str(tmp_path)))
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], cwd=ROOT)

    def look(_: int) -> list[int]:
        seen = []
        for _ in range(12):
            about = page.json("run", run="version_0")
            header, planes = decode(page.get("map", run="version_0", bins=64).get_data())
            assert header["last"] == sorted(header["last"])
            # What is shown is what was written: the norm of a step is its number plus one.
            finite = planes[0][np.isfinite(planes[0])]
            assert finite.max(initial=1.0) <= 1 + max(header["last"], default=0)
            seen.append(about["steps"])
        return seen

    try:
        deadline = time.monotonic() + 60
        while not page.json("runs")["runs"] or not page.json("run", run="version_0")["steps"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with ThreadPoolExecutor(4) as tabs:
            found = list(tabs.map(look, range(4)))
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait(30)
    assert all(seen == sorted(seen) for seen in found)
    assert max(map(max, found)) > min(map(min, found))

    whole = read_recording(folder)
    while not page.json("run", run="version_0")["complete"]:
        pass
    about = page.json("run", run="version_0")
    assert about["steps"] == len(whole.steps)
    assert about["last_step"] == int(whole.steps[-1])

    middle = int(whole.steps[-1]) // 2
    resumed = RecordingWriter(folder)
    resumed.add(make_sample(middle, [5.0] * 50, layout=whole.layout))
    resumed.close([])
    while not (about := page.json("run", run="version_0"))["complete"]:
        pass
    assert about["last_step"] == middle
    assert page.json("step", run="version_0", step=10**9)["series"]["grad_norm"]["values"] == (
        [5.0] * 50
    )
