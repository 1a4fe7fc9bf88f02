"""Slider, keyboard, links, themes, and text for those who do not see the map."""

from __future__ import annotations

from collections.abc import Callable

from tests.browser.page import Page

Tab = Callable[..., Page]


def test_the_slider_moves_the_profile_to_exact_values(tab: Tab) -> None:
    page = tab(run="known", layer="net.0")
    slider = page.ui.get_by_label("Step", exact=True)
    slider.focus()
    page.page.keyboard.press("Home")
    page.until(lambda: page.state().get("step") == "0")
    for _ in range(3):
        page.page.keyboard.press("ArrowRight")
    page.until(lambda: page.state().get("step") == "3")
    page.until(lambda: page.text(".profile .subtitle") == "step 3")
    assert slider.evaluate("e => e === document.activeElement")
    pinned = page.ui.get_by_label("Pinned step", exact=True)
    pinned.fill("60")
    pinned.press("Enter")
    page.until(lambda: "Step 60" in page.text(".detail"))
    assert "\n100\n" in page.text(".detail").replace("\t", "\n")


def test_play_runs_and_stops(tab: Tab) -> None:
    page = tab(run="known", step=0)
    page.ui.get_by_role("button", name="Play").click()
    page.until(lambda: int(page.state()["step"]) > 5)
    page.ui.get_by_role("button", name="Pause").click()
    stopped = page.state()["step"]
    page.page.wait_for_timeout(300)
    assert page.state()["step"] == stopped


def test_the_keyboard_does_what_the_pointer_does(tab: Tab) -> None:
    page = tab(run="known")
    page.ui.locator(".heat").focus()
    press = page.page.keyboard.press
    press("Home")
    press("ArrowRight")
    press("Shift+ArrowRight")
    page.until(lambda: page.state().get("step") == "11")
    press("ArrowDown")
    press("ArrowDown")
    page.until(lambda: page.state().get("layer") == "net.1")
    page.until(lambda: page.text("p.unseen") == "net.1, step 11, Gradient norm 0.001")
    press("+")
    page.until(lambda: page.state().get("to", "") != "")
    press("0")
    page.until(lambda: "to" not in page.state())
    press("n")
    page.until(lambda: page.state().get("finding") == "0")
    press("Escape")
    page.until(lambda: "step" not in page.state())
    press("?")
    page.ui.get_by_role("dialog", name="Keys").wait_for()
    press("Escape")
    page.until(lambda: not page.ui.get_by_role("dialog", name="Keys").is_visible())


def test_a_link_shows_the_same_to_someone_else(tab: Tab) -> None:
    state = {
        "run": "known",
        "scale": "own",
        "rows": "kind",
        "colours": "viridis",
        "from": 10,
        "to": 70,
        "step": 60,
        "layer": "net.0",
        "finding": 0,
    }
    page = tab(**state)
    assert page.ui.get_by_label("Run", exact=True).input_value() == "known"
    for name in ("vs. own median", "By kind", "Viridis", "Show in the map"):
        button = page.ui.get_by_role("button", name=name)
        assert button.get_attribute("aria-pressed") == "true"
    page.until(lambda: "Step 60" in page.text(".detail"))
    assert "10–70" in page.text(".reset")
    assert page.state() == {name: str(value) for name, value in state.items()}


def test_a_link_to_a_run_that_is_not_there_says_so(tab: Tab) -> None:
    page = tab(run="gone & lost")
    assert 'There is no run "gone & lost" here' in page.text(".message")


def test_dark_mode_follows_tensorboard(tab: Tab) -> None:
    page = tab(run="known")
    background = "e => getComputedStyle(e).backgroundColor"
    light = page.ui.locator(".gradwatch").evaluate(background)
    page.page.evaluate("document.body.classList.add('dark-mode')")
    page.until(lambda: page.ui.locator("html").get_attribute("data-theme") == "dark")
    assert page.ui.locator(".gradwatch").evaluate(background) != light


def test_everything_has_a_name_and_the_layers_are_a_table_too(tab: Tab) -> None:
    page = tab(run="sick/version_0")
    nameless = page.ui.locator(".gradwatch").evaluate(
        """root => Array.from(root.querySelectorAll("button, select, input, [tabindex]"))
            .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim()))
            .map((e) => e.outerHTML)"""
    )
    assert nameless == []
    page.ui.get_by_text("All 7 layers as a table").click()
    rows = page.ui.locator(".tables tbody tr")
    page.until(lambda: rows.count() == 7)
    assert "vanishing gradients" in rows.first.inner_text()
    rows.first.get_by_role("button").click()
    page.until(lambda: page.state().get("layer") == "hidden.0.linear")
    page.ui.locator(".curve").first.wait_for()
    assert "hidden.0.linear · Gradient norm" in page.text(".curve h3")


def test_who_comes_back_from_another_tab_finds_what_he_left(tab: Tab) -> None:
    page = tab(run="known", step=7, layer="net.1")
    for name in ("#text", "#gradwatch"):
        page.page.evaluate("hash => { location.hash = hash; }", name)
        page.page.wait_for_timeout(500)
    page.until(lambda: "Step 7" in page.text(".detail"))
    assert "net.1" in page.text(".detail")
