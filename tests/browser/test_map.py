"""The heat map: known cells have known colours, and no step is lost at any zoom."""

from __future__ import annotations

from collections.abc import Callable

from tests.browser.page import Page
from tests.browser.recordings import LONG, SPIKE

#: Ends, middle and exceptions of the light and of the dark map: `frontend/src/colour/maps.ts`.
LOW, MIDDLE, HIGH = (22, 15, 82), (244, 241, 230), (103, 4, 13)
DARK_LOW, DARK_MIDDLE, DARK_HIGH = (195, 188, 255), (44, 49, 56), (255, 193, 104)
NAN, INF, NONE = (135, 0, 255), (0, 0, 0), (228, 231, 235)

Tab = Callable[..., Page]


def test_what_is_no_number_has_colours_of_its_own(tab: Tab) -> None:
    page = tab(run="known", scale="own")

    def at(step: int, line: int) -> tuple[int, int, int]:
        return page.cell(step, line, 100, 5)

    assert at(10, 2) == NAN
    assert at(40, 4) == INF
    assert at(20, 3) == NONE
    assert at(60, 0) == HIGH
    assert at(30, 1) == LOW
    assert {at(50, line) for line in range(5)} == {MIDDLE}


def test_the_dark_map_has_light_ends(tab: Tab) -> None:
    page = tab(dark=True, run="known", scale="own")
    seen = [page.cell(step, line, 100, 5) for step, line in ((30, 1), (50, 0), (60, 0))]
    assert seen == [DARK_LOW, DARK_MIDDLE, DARK_HIGH]


def test_a_spike_of_one_step_is_seen_at_every_zoom(tab: Tab) -> None:
    page = tab(run="spike", scale="own", step=SPIKE)
    page.ui.locator(".heat").focus()
    windows = []
    while not windows or windows[-1] > 16:
        seen = [HIGH in page.line_colours(line, 6) for line in range(6)]
        assert seen == [False, False, False, False, True, False]
        before = page.state().get("to")
        page.page.keyboard.press("+")
        page.until(lambda before=before: page.state().get("to") != before)
        page.settle()
        windows.append(int(page.state()["to"]) - int(page.state()["from"]))
    assert len(windows) == 8


def test_a_spike_of_one_step_is_seen_in_a_narrow_page(tab: Tab) -> None:
    page = tab(run="spike", scale="own", width=520)
    assert HIGH in page.line_colours(4, 6)
    # One column of a page, and no scrolling sideways.
    assert page.ui.locator("html").evaluate("e => e.scrollWidth <= e.clientWidth")


def test_layers_of_one_kind_stand_together(tab: Tab) -> None:
    page = tab(run="sick/version_0")
    page.ui.get_by_role("button", name="By kind").click()
    page.until(lambda: page.state().get("rows") == "kind")
    page.ui.get_by_role("button", name="vs. own median").click()
    page.until(lambda: page.state().get("scale") == "own")
    page.ui.get_by_role("button", name="Viridis").click()
    page.until(lambda: page.state().get("colours") == "viridis")
    page.settle()
    assert MIDDLE not in page.line_colours(0, 7)


def test_early_layers_of_a_vanishing_run_are_blue_and_the_last_is_not(tab: Tab) -> None:
    page = tab(run="sick/version_0")
    for red, _, blue in page.line_colours(0, 7):
        assert blue > red + 60
    assert all(red > 200 for red, _, _ in page.line_colours(6, 7))


def test_drag_zooms_double_click_resets_and_a_click_pins(tab: Tab) -> None:
    page = tab(run="spike")
    box = page.ui.locator(".heat").bounding_box()
    mouse = page.page.mouse
    mouse.move(box["x"] + 400, box["y"] + 40)
    mouse.down()
    mouse.move(box["x"] + 500, box["y"] + 60, steps=4)
    mouse.up()
    page.until(lambda: "from" in page.state())
    zoomed = page.state()
    assert 0 < int(zoomed["from"]) < int(zoomed["to"]) < LONG
    page.settle()
    mouse.click(box["x"] + 600, box["y"] + 100)
    page.until(lambda: "step" in page.state())
    assert int(zoomed["from"]) <= int(page.state()["step"]) <= int(zoomed["to"])
    assert page.state()["layer"].startswith("blocks.")
    mouse.dblclick(box["x"] + 600, box["y"] + 100)
    page.until(lambda: "from" not in page.state())


def test_the_pointer_is_told_what_lies_under_it(tab: Tab) -> None:
    page = tab(run="known")
    box = page.ui.locator(".heat").bounding_box()
    plot = box["width"] - 158
    page.page.mouse.move(box["x"] + 148 + 0.605 * plot, box["y"] + 0.1 * box["height"])
    page.until(lambda: page.text(".tip") == "net.0 (Linear)\nstep 60: 100")
    page.page.mouse.move(box["x"] + 148 + 0.205 * plot, box["y"] + 0.7 * box["height"])
    page.until(lambda: page.text(".tip") == "net.3 (Linear)\nstep 20: nothing measured")
