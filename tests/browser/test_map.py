"""The heat map: known cells have known colours, and no step is lost at any zoom."""

from __future__ import annotations

from collections.abc import Callable

from tests.browser.page import Page
from tests.browser.recordings import LONG, SPIKE

#: Ends, middle and exceptions of the light and of the dark map: `frontend/src/colour/maps.ts`.
LOW, MIDDLE, HIGH = (22, 15, 82), (244, 241, 230), (103, 4, 13)
DARK_LOW, DARK_MIDDLE, DARK_HIGH = (195, 188, 255), (44, 49, 56), (255, 193, 104)
NAN, INF, ZERO, NONE = (135, 0, 255), (0, 0, 0), (105, 90, 90), (228, 231, 235)

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
    page.until(lambda: page.text(".tip") == "net.3 (Linear)\nstep 20: no gradient")


def patterned(page: Page, step: float, line: int, steps: int, lines: int) -> bool:
    """Whether something is drawn over a cell."""
    seen = page.box(step / steps, (line + 0.1) / lines, 4 / steps, 0.8 / lines)
    return len(seen) > 1


def test_zero_no_gradient_and_not_measured_are_three_things(tab: Tab) -> None:
    page = tab(run="turns")
    # The layer that joined comes last: g, d, frozen, zero, late.
    assert page.cell(10, 3, 80, 5) == ZERO
    assert page.cell(10, 2, 80, 5) == page.cell(10, 4, 80, 5) == NONE
    over = [patterned(page, 10, line, 80, 5) for line in range(5)]
    assert over == [False, False, True, True, False]
    words = page.text(".legend")
    for word in ("exactly 0", "no gradient", "not measured"):
        assert word in words
    page.ui.locator(".heat").focus()
    for _ in range(3):
        page.page.keyboard.press("ArrowDown")
    page.until(lambda: page.state().get("layer") == "frozen")
    page.until(lambda: "no gradient" in page.text(".detail"))
    page.page.keyboard.press("ArrowDown")
    page.until(lambda: page.state().get("layer") == "zero")
    page.until(lambda: "exactly 0" in page.text(".curve h3"))
    assert "0 exactly zero" in page.text(".profile .note")
    assert "– no gradient" in page.text(".profile .note")


def test_a_run_of_zeros_has_a_map_of_zeros(tab: Tab) -> None:
    for scale in ("absolute", "own"):
        page = tab(run="all zero", scale=scale)
        assert {page.cell(step, line, 3, 2) for step in range(3) for line in range(2)} == {ZERO}
        assert "exactly 0" in page.text(".legend")
        page.close()


def test_optimizers_that_take_turns_leave_no_gap(tab: Tab) -> None:
    page = tab(run="turns", **{"from": 10, "to": 25, "step": 14})
    # One step is many pixels wide here, and each layer has had no gradient at every second one.
    first, second = page.line_colours(0, 5), page.line_colours(1, 5)
    assert first == second == {MIDDLE}
    box = page.ui.locator(".heat").bounding_box()
    plot = box["width"] - 158
    page.page.mouse.move(box["x"] + 148 + 5.5 / 16 * plot, box["y"] + 0.1 * box["height"])
    page.until(lambda: page.text(".tip") == "g (Linear)\nstep 14: 1")
    page.page.mouse.click(box["x"] + 148 + 4.5 / 16 * plot, box["y"] + 0.3 * box["height"])
    page.until(lambda: page.state().get("layer") == "d")
    page.until(lambda: "at 13" in page.text(".detail"))


def test_shift_and_drag_moves_the_window(tab: Tab) -> None:
    page = tab(run="spike", **{"from": 1000, "to": 1999})
    box = page.ui.locator(".heat").bounding_box()
    plot = box["width"] - 158
    middle, height = box["x"] + 148 + plot / 2, box["y"] + 50
    mouse, keyboard = page.page.mouse, page.page.keyboard

    def drag(by: float) -> None:
        keyboard.down("Shift")
        mouse.move(middle, height)
        mouse.down()
        mouse.move(middle + by, height, steps=8)
        mouse.up()
        keyboard.up("Shift")

    def window() -> tuple[int, int]:
        return int(page.state()["from"]), int(page.state()["to"])

    drag(-plot / 4)  # the picture follows the hand: later steps come in from the right
    page.until(lambda: abs(window()[0] - 1250) < 15)
    assert window()[1] - window()[0] == 999
    drag(plot * 0.4)
    page.until(lambda: abs(window()[0] - 850) < 25)
    for _ in range(4):
        drag(plot * 0.45)
    page.until(lambda: window() == (0, 999))  # and not out of the run
    assert "step" not in page.state()  # a drag is no click
    assert "layer" not in page.state()


def test_the_wheel_zooms_with_ctrl_and_scrolls_without(tab: Tab) -> None:
    page = tab(run="spike", scale="own")
    box = page.ui.locator(".heat").bounding_box()
    plot = box["width"] - 158
    where = (SPIKE + 0.5) / LONG
    page.page.mouse.move(box["x"] + 148 + where * plot, box["y"] + 50)
    page.page.mouse.wheel(0, -100)
    page.page.wait_for_timeout(200)
    assert "from" not in page.state()
    page.page.mouse.wheel(0, 100)
    page.page.keyboard.down("Control")
    for _ in range(12):
        page.page.mouse.wheel(0, -100)
        page.page.wait_for_timeout(60)
    page.until(lambda: "from" in page.state())
    page.settle()
    first, last = int(page.state()["from"]), int(page.state()["to"])
    assert last - first < LONG / 8
    # What lay under the pointer still does.
    assert abs((SPIKE - first) / (last - first) - where) < 0.05
    assert HIGH in page.line_colours(4, 6)
    for _ in range(14):
        page.page.mouse.wheel(0, 100)
        page.page.wait_for_timeout(60)
    page.page.keyboard.up("Control")
    page.until(lambda: "from" not in page.state())
