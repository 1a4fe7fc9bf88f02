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


def test_what_cannot_be_shown_says_why(tab: Tab) -> None:
    page = tab(run="no steps", wait=".problem")
    assert "no step has been recorded yet" in page.text(".problem")
    for run, where, words in (
        ("newer", ".problem", "pip install --upgrade"),
        ("no gradient", ".message", "no layer has had a gradient"),
    ):
        page.ui.get_by_label("Run", exact=True).select_option(run)
        page.until(lambda where=where, words=words: words in page.text(where))
        assert not page.ui.locator(".pane").first.is_visible()
