"""What the view costs in the browser: from an empty tab to the map, and each picture after that.

Recordings as in `benchmarks/view.py`, served by stock TensorBoard to a headless Chromium. `picture`
is the script's own time for one picture of the screen (reading the binned values, colours, axes,
curves), as the browser's performance timeline has it; `map` is the heat map's part of it. `shown`
is from opening the address to the map on the screen, TensorBoard's own page included.

    python -m benchmarks.view_in_browser       # writes benchmarks/results/view_in_browser.md
    python -m benchmarks.view_in_browser --quick --output -
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.view import make
from tests.tensorboard.serving import serving

RESULTS = Path(__file__).parent / "results" / "view_in_browser.md"

#: Layers and steps.
SIZES = {"200 x 20,000": (200, 20_000), "1,000 x 20,000": (1_000, 20_000)}
QUICK = {"50 x 1,000": (50, 1_000)}
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]

MEASURES = """() => {
    const of = (name) => performance.getEntriesByName(name).map((entry) => entry.duration);
    return [of("gradwatch:update"), of("gradwatch:paint")];
}"""


def measure(page: Any, address: str) -> dict[str, float]:
    """Open the tab, then zoom in and out and step, as a user would."""
    began = time.perf_counter()
    page.goto("about:blank")
    page.goto(f"{address}#gradwatch")
    frame = page.frame_locator("iframe[src*=plugin_entry]").first
    heat = frame.locator(".heat")
    frame.locator(".heat .picture").wait_for()
    found = {"shown, ms": 1e3 * (time.perf_counter() - began)}
    page.wait_for_timeout(2_000)
    updates, paints = heat.evaluate(MEASURES)
    found["slowest picture until all is read, ms"] = max(updates)
    found["slowest map until all is read, ms"] = max(paints)
    heat.evaluate("() => performance.clearMeasures()")
    heat.focus()
    for key in ["+", "+", "+", "-", "-", "ArrowLeft", "ArrowLeft", "ArrowDown", "0"]:
        page.keyboard.press(key)
        page.wait_for_timeout(400)
    updates, paints = heat.evaluate(MEASURES)
    found["slowest picture while zooming, ms"] = max(updates)
    found["slowest map while zooming, ms"] = max(paints)
    return found


def table(results: dict[str, dict[str, float]]) -> str:
    """Lay the figures out as markdown."""
    names = list(next(iter(results.values())))
    lines = [f"| layers x steps | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for size, found in results.items():
        lines.append(f"| {size} | " + " | ".join(f"{found[name]:.0f}" for name in names) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure each size and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small recording")
    parser.add_argument("--output", default=str(RESULTS), help="a file, or - for the terminal")
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    results: dict[str, dict[str, float]] = {}
    for size, (layers, steps) in (QUICK if args.quick else SIZES).items():
        with tempfile.TemporaryDirectory() as logs, tempfile.TemporaryDirectory() as profile:
            make(Path(logs) / "gradwatch", layers, 2, steps)
            with serving("--logdir", logs) as address, sync_playwright() as playwright:
                context = playwright.chromium.launch_persistent_context(
                    profile,
                    executable_path=shutil.which("chromium"),
                    headless=True,
                    args=FLAGS,
                    viewport={"width": 1440, "height": 1000},
                )
                results[size] = measure(context.pages[0], address)
                context.close()
    text = (
        "# The view in the browser\n\n"
        f"`python -m benchmarks.view_in_browser` on {platform.machine()}, {os.cpu_count()} cores, "
        f"load average {os.getloadavg()[0]:.0f}; software rendering, window 1440 x 1000.\n\n"
        f"{table(results)}\n"
    )
    if args.output == "-":
        sys.stdout.write(text)
    else:
        Path(args.output).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
