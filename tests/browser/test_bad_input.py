"""Recordings that are odd, empty or of another age: a clear message, and never a broken page."""

from __future__ import annotations

from collections.abc import Callable

from tests.browser.page import Page
from tests.browser.recordings import ODD_LAYER, ODD_RUN

Tab = Callable[..., Page]


def test_names_are_shown_as_they_are(tab: Tab) -> None:
    page = tab(run=ODD_RUN, layer=ODD_LAYER)
    assert page.ui.get_by_label("Run", exact=True).input_value() == ODD_RUN
    page.until(lambda: ODD_LAYER in page.text(".detail"))
    assert page.ui.locator(".gradwatch b, .gradwatch i").filter(has_text="me").count() == 0
    assert page.state() == {"run": ODD_RUN, "layer": ODD_LAYER}


def test_a_run_of_nothing_but_nan_is_a_map_of_nan(tab: Tab) -> None:
    page = tab(run="all nan")
    assert (135, 0, 255) in page.line_colours(0, 2)
    page.until(lambda: "NaN" in page.text(".detail"))
    assert page.text(".headline h2") == "Every gradient is NaN or Inf"
    assert page.ui.locator(".headline.warning").count() == 1


def test_what_cannot_be_shown_says_why(tab: Tab) -> None:
    page = tab(run="no steps", wait=".problem")
    assert "No step has been recorded yet" in page.text(".problem")
    for run, where, words in (
        ("newer", ".problem", "pip install --upgrade"),
        ("newer", ".headline h2", "This recording cannot be read"),
        ("no gradient", ".message", "no layer has had a gradient"),
    ):
        page.ui.get_by_label("Run", exact=True).select_option(run)
        page.until(lambda where=where, words=words: words in page.text(where))
        assert not page.ui.locator(".pane").first.is_visible()


def test_one_step_is_a_run(tab: Tab) -> None:
    page = tab(run="one step")
    assert page.text(".status").startswith("step 0")
    assert len(page.line_colours(0, 2)) == 1
    page.ui.locator(".heat").focus()
    for key in ("+", "-", "]", "[", "ArrowRight", "End"):
        page.page.keyboard.press(key)
    page.until(lambda: page.state().get("step") == "0")
    assert "from" not in page.state()
    page.ui.get_by_role("button", name="Play").click()
    page.page.wait_for_timeout(300)
    assert page.state()["step"] == "0"


def test_two_processes_in_one_folder_are_told_apart(tab: Tab) -> None:
    page = tab(run="twice")
    assert "Two runs seem to have written here at the same time" in page.text(".problem")
    assert "a folder of its own" in page.text(".problem")
    assert page.ui.locator(".pane .picture").is_visible()


def test_ten_thousand_layers_and_one_nan(tab: Tab) -> None:
    page = tab(run="huge")
    # Some 24 layers share a line of pixels; the one that is broken is what it shows.
    seen = page.box(7.5 / 20, 0.42, 0, 0.03)
    assert (135, 0, 255) in seen
    assert "All 10,000 layers" in page.text(".tables summary")
    page.ui.get_by_text("All 10,000 layers as a table").click()
    page.until(lambda: page.ui.locator(".tables tbody tr").count() == 2000)
    assert "The first 2,000" in page.text(".tables .hint")


def test_layers_that_join_half_way_have_their_part_of_the_map(tab: Tab) -> None:
    page = tab(run="turns")
    assert page.cell(70, 4, 80, 5) != page.cell(10, 4, 80, 5)
    page.ui.get_by_text("Configuration, environment and segments").click()
    segments = page.ui.locator(".tables li").all_inner_texts()
    assert [", 4 layers" in text or ", 5 layers" in text for text in segments] == [True, True]
