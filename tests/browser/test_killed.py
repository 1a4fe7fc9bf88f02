"""The page stays open while the writer is killed, its files cut off, taken away and made anew."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lightning_gradwatch.recording import RecordingWriter
from lightning_gradwatch.testing import make_sample
from tests.browser.page import Page
from tests.tensorboard.serving import ROOT, serving
from tests.tensorboard.test_killed import WRITER


def last_step(page: Page) -> int:
    words = page.text(".status").replace(",", "").split()
    return int(words[1]) if words[:1] == ["step"] else -1


def test_killed_cut_off_taken_away_and_made_anew(
    tmp_path: Path, open_page: Callable[..., Page]
) -> None:
    folder = tmp_path / "version_0" / "gradwatch"
    with serving("--logdir", str(tmp_path)) as address:
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], cwd=ROOT)
        try:
            page = open_page(address)
            page.show()
            page.until(lambda: last_step(page) > 100, 60)
            before = last_step(page)
            page.until(lambda: last_step(page) > before, 30)
            slider = page.ui.get_by_label("Step", exact=True)
            slider.focus()
            slider.press("Home")
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait(30)
        page.ui.get_by_role("button", name="last").click()
        table = folder / "segment-0000.steps.npy"

        # Cut off in the middle of a block: fewer steps, and the page goes on.
        killed_at = last_step(page)
        data = table.read_bytes()
        table.write_bytes(data[: len(data) // 2 + 11])
        page.until(lambda: 0 < last_step(page) < killed_at, 30)
        shorter = last_step(page)
        page.until(lambda: f"step {shorter:,} (the last)" in page.text(".profile .subtitle"))

        # Nobody has written for a while: the run is over, and its end is a torn one.
        assert "live" in page.text(".status")
        assert page.ui.locator(".problem").count() == 0
        for path in folder.iterdir():
            os.utime(path, (time.time() - 60,) * 2)
        page.until(lambda: page.text(".status") == f"step {shorter:,}", 30)
        page.until(lambda: "unfinished block" in page.text(".problem"), 30)

        # Nonsense instead of a table.
        table.write_bytes(b"no table at all" * 100)
        page.until(lambda: "is no table" in page.text(".problem"), 30)

        # All of it gone, as after `rm -r`.
        shutil.rmtree(folder)
        page.until(lambda: "GradWatch()" in page.text(".message"), 30)
        assert page.text(".status") == "waiting for a run"
        assert not page.ui.locator(".pane").first.is_visible()

        # The next run, in the same place, with other layers.
        again = RecordingWriter(folder, buffer_rows=1)
        for step in range(30):
            again.add(make_sample(step, {"new.weight": 1.0, "other.weight": 2.0}, loss=1.0))
        page.until(lambda: last_step(page) == 29, 30)
        page.until(lambda: "2 layers" in page.text(".headline"))
        assert page.ui.locator(".pane .picture").is_visible()
        again.close([])
        page.close()  # before the server goes, whom it asks for news
