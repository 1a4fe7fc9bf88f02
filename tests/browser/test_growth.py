"""Runs that grow, are torn, are missing; other addresses; the report that opens from disk."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

from lightning_gradwatch import Finding, Severity
from lightning_gradwatch.cli.main import main
from lightning_gradwatch.recording import RecordingWriter
from lightning_gradwatch.testing import make_sample
from tests.browser.page import Page
from tests.tensorboard.serving import serving

Tab = Callable[..., Page]


def test_a_run_grows_while_it_is_looked_at_and_focus_stays(tab: Tab, logs: Path) -> None:
    writer = RecordingWriter(logs / "growing" / "gradwatch")

    def grow(steps: range) -> None:
        for step in steps:
            writer.add(make_sample(step, {"a.weight": 1.0, "b.weight": 2.0}, loss=1.0, lr=0.1))
        writer.flush()

    def find(last: int) -> None:
        lived = f"It goes on until step {last}."
        writer.finding(
            Finding(
                "stalled", Severity.WARNING, ("a",), 3, last, last - 2, {}, lived, "Why", ("x", "y")
            )
        )

    grow(range(50))
    find(49)
    page = tab(run="growing")
    page.until(lambda: "step 49" in page.text(".status"))
    page.ui.get_by_text("or something else").click()
    slider = page.ui.get_by_label("Step", exact=True)
    slider.focus()
    slider.evaluate("e => { window.kept = [e, document.querySelector('.card details')]; }")
    grow(range(50, 90))
    find(89)
    page.until(lambda: "step 89" in page.text(".status"))
    assert slider.evaluate("e => e === document.activeElement && e === window.kept[0]")
    # The words have changed; what was unfolded still is.
    page.until(lambda: "until step 89" in page.text(".card"))
    folded = page.ui.locator(".card details").first
    assert folded.evaluate("e => e === window.kept[1] && e.open")
    # What follows the end goes with it; no reload, no click.
    page.until(lambda: "step 89 (the last)" in page.text(".profile .subtitle"))
    writer.close([])


def test_a_torn_recording_says_so_and_shows_the_rest(tab: Tab) -> None:
    page = tab(run="torn")
    assert "unfinished block" in page.text(".problem")
    assert page.ui.locator(".pane .picture").is_visible()


def test_without_a_recording_the_page_says_what_to_do(
    tmp_path: Path, open_page: Callable[..., Page]
) -> None:
    with serving("--logdir", str(tmp_path)) as address:
        page = open_page(address)
        page.show(wait=".message:visible")
        assert "callbacks=[GradWatch()]" in page.text(".message")
        # The first steps appear by themselves.
        writer = RecordingWriter(tmp_path / "new run" / "gradwatch")
        writer.add(make_sample(0, {"a.weight": 1.0}))
        writer.close([])
        page.ui.locator(".pane .picture").wait_for()
        page.close()  # before the server goes, whom it asks for news


def test_other_addresses_and_names_of_runs(logs: Path, open_page: Callable[..., Page]) -> None:
    spec = f"a:{logs / 'sick'},b:{logs / 'known'}"
    with serving("--logdir_spec", spec, prefix="/some/where") as address:
        page = open_page(address)
        page.show(run="b/.")
        names = page.ui.get_by_label("Run", exact=True).locator("option").all_inner_texts()
        assert "a/version_0" in names
        assert "A jump of ×100." in page.text(".card")
        page.close()


def test_a_report_opens_from_disk_and_asks_nobody(
    logs: Path, tmp_path: Path, open_page: Callable[..., Page]
) -> None:
    report = tmp_path / "report.html"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(["report", str(logs / "sick" / "version_0"), "-o", str(report)])
    page = open_page(report.as_uri())
    page.page.goto(f"{report.as_uri()}#scale=own")
    page.ui.locator(".pane .picture").wait_for()
    page.settle()
    assert page.text(".headline h2") == "Vanishing gradients"
    page.ui.get_by_role("button", name="Show in the map").click()
    page.until(lambda: "finding=0" in page.page.url)
    page.until(lambda: "hidden.0.linear" in page.text(".detail"))
    page.ui.get_by_role("button", name="Dark or light").click()
    page.until(lambda: page.ui.locator("html").get_attribute("data-theme") == "dark")
