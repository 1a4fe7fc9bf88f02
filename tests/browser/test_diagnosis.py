"""The diagnosis on top: what a new user reads within ten seconds, and where a click leads."""

from __future__ import annotations

from collections.abc import Callable

from tests.browser.page import Page

Tab = Callable[..., Page]


def test_a_sick_run_says_what_where_why_and_what_to_try(tab: Tab) -> None:
    page = tab(run="sick/version_0")
    assert page.text(".headline h2") == "Vanishing gradients"
    card = page.text(".card")
    assert "hidden.0.linear" in card
    assert "dies on its way back" in card
    assert "sigmoid" in card.lower()
    assert "Try" in card
    # Above the map, without scrolling.
    top = page.ui.locator(".card").first.bounding_box()
    assert top["y"] + top["height"] < page.ui.locator(".heat").bounding_box()["y"] < 700


def test_a_click_shows_the_place_in_the_map(tab: Tab) -> None:
    page = tab(run="known")
    page.ui.get_by_role("button", name="Show in the map").click()
    page.until(lambda: page.state().get("finding") == "0")
    assert page.state()["layer"] == "net.0"
    assert page.state()["step"] == "60"
    assert page.ui.locator(".heat").evaluate("e => e === document.activeElement")
    page.until(lambda: "Step 60" in page.text(".detail"))
    assert "100" in page.text(".detail")


def test_marks_stand_at_their_steps(tab: Tab) -> None:
    page = tab(run="known")
    found = page.ui.locator(".marks button.finding")
    acted = page.ui.locator(".marks button.action")
    assert (found.count(), acted.count()) == (1, 1)
    assert "SkipStep" in acted.get_attribute("aria-label")
    box = page.ui.locator(".heat .picture").bounding_box()
    where = [b.bounding_box() for b in (acted, found)]
    centres = [(b["x"] + b["width"] / 2 - box["x"] - 148) / (box["width"] - 158) for b in where]
    assert abs(centres[0] - 0.105) < 0.01
    assert abs(centres[1] - 0.605) < 0.01
    acted.click()
    page.until(lambda: page.state().get("step") == "10")


def test_a_time_profile_is_shown_for_a_signal_that_dies_in_time(tab: Tab) -> None:
    page = tab(run="rnn/version_0")
    page.ui.get_by_role("button", name="Time profile").click()
    page.until(lambda: page.state().get("series") == "time_profile:rnn")
    page.settle()
    assert page.text(".profile h2") == "Profile over time"
    # The last time steps have what the first ones lack.
    first, last = page.line_colours(0, 64), page.line_colours(63, 64)
    assert max(map(sum, first)) < 300 < 500 < min(map(sum, last))


def test_nan_has_a_card_and_hatched_cells(tab: Tab) -> None:
    page = tab(run="overflow/version_0")
    assert "NaN or Inf" in page.text(".diagnosis")
    assert (135, 0, 255) in page.line_colours(0, 1)


def test_two_runs_stand_side_by_side(tab: Tab) -> None:
    page = tab(run="sick/version_0", compare="cured/version_0")
    page.ui.locator(".pane .picture").nth(1).wait_for()
    heads = page.ui.locator(".headline h2").all_inner_texts()
    assert heads[0] == "sick/version_0: vanishing gradients"
    assert heads[1].startswith("cured/version_0: ")
    first, second = (page.ui.locator(".pane").nth(i).bounding_box() for i in range(2))
    assert first["y"] == second["y"]
    assert first["x"] + first["width"] <= second["x"]
    assert "cured/version_0" in page.text(".profile .note")
    page.ui.get_by_label("Compare with").select_option("")
    page.until(lambda: page.ui.locator(".pane").count() == 1)
    page.until(lambda: "compare" not in page.state())
