"""The page of the tab or of a report, as a user sees it and with the numbers behind it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote

#: Room left of the map for labels, and right of it, in a wide page.
GUTTER = 148
NARROW_GUTTER = 92
RIGHT = 10

Colour = tuple[int, int, int]


class Page:
    """A page of the browser.

    Attributes:
        page: Playwright's page.
        ui: Where our own elements are: the tab's frame, or the report itself.
        errors: Uncaught errors, and what the console calls one.
        strangers: Requests to anyone but TensorBoard.
    """

    def __init__(self, page: Any, address: str, width: int = 1440, height: int = 1000) -> None:
        self.page, self.address = page, address
        # TensorBoard asks for its fonts without the path prefix.
        self.host = "/".join(address.split("/")[:3]) if address.startswith("http") else address
        self.errors: list[str] = []
        self.strangers: list[str] = []
        page.set_viewport_size({"width": width, "height": height})
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._log)
        page.on("request", self._request)
        self.ui = page

    def _log(self, message: Any) -> None:
        # TensorBoard's own frame warns about itself.
        if message.type == "error" and "plugin/gradwatch" in message.location.get("url", ""):
            self.errors.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.host, "data:", "blob:", "about:")):
            self.strangers.append(request.url)

    def show(self, dark: bool = False, wait: str = ".pane .picture", **state: object) -> None:
        """Open the tab at a state."""
        theme = json.dumps({"theme": "dark" if dark else "light"})
        self.page.add_init_script(
            f"localStorage.setItem('_tb_global_settings', {json.dumps(theme)})"
        )
        self.page.emulate_media(color_scheme="dark" if dark else "light")
        parts = [f"&p.gradwatch.{name}={quote(str(value))}" for name, value in state.items()]
        self.page.goto(f"{self.address}#gradwatch{''.join(parts)}")
        self.ui = self.page.frame_locator("iframe[src*=plugin_entry]").first
        self.ui.locator(wait).first.wait_for()
        self.settle()

    def settle(self) -> None:
        """Wait until the map of what was asked for is on the screen."""
        self.until(lambda: self.ui.locator(".heat.loading").count() == 0)
        self.page.wait_for_timeout(150)

    def until(self, holds: Callable[[], Any], seconds: float = 15.0) -> None:
        """Wait for something to become true."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "it did not happen in time"
            self.page.wait_for_timeout(50)

    def state(self) -> dict[str, str]:
        """The values in the address."""
        pairs = parse_qsl(self.page.evaluate("location.hash").lstrip("#"), keep_blank_values=True)
        prefix = "p.gradwatch."
        return {k[len(prefix) :]: v for k, v in pairs if k.startswith(prefix)}

    def text(self, selector: str) -> str:
        """The text of the first element, as it looks: a space is a space."""
        return str(self.ui.locator(selector).first.inner_text()).replace("\u00a0", " ")

    def box(self, x: float, y: float, width: float, height: float) -> dict[Colour, int]:
        """How often each colour occurs in a part of the map; shares of its width and height."""
        gutter = NARROW_GUTTER if self.has_class("narrow") else GUTTER
        counted = self.ui.locator(".heat .picture").first.evaluate(
            """(canvas, [gutter, right, x, y, width, height]) => {
                const ratio = devicePixelRatio;
                const wide = canvas.width - Math.round((gutter + right) * ratio);
                const data = canvas.getContext("2d").getImageData(
                    gutter * ratio + Math.floor(x * wide),
                    Math.floor(y * canvas.height),
                    Math.max(1, Math.floor(width * wide)),
                    Math.max(1, Math.floor(height * canvas.height)),
                ).data;
                const counts = new Map();
                for (let i = 0; i < data.length; i += 4) {
                    const key = `${data[i]},${data[i + 1]},${data[i + 2]}`;
                    counts.set(key, (counts.get(key) ?? 0) + 1);
                }
                return Array.from(counts);
            }""",
            [gutter, RIGHT, x, y, width, height],
        )
        return {tuple(map(int, key.split(","))): count for key, count in counted}

    def has_class(self, name: str) -> bool:
        """Whether the page has a class of the layout."""
        classes = self.ui.locator(".gradwatch").first.get_attribute("class") or ""
        return name in classes.split()

    def cell(self, step: int, line: int, steps: int, lines: int) -> Colour:
        """The colour that fills most of a cell: hatching and separators are thinner."""
        seen = self.box((step + 0.5) / steps, line / lines, 0, 1 / lines)
        return max(seen, key=lambda colour: seen[colour])

    def line_colours(self, line: int, lines: int) -> set[Colour]:
        """Every colour in the middle of a line of the map."""
        return set(self.box(0, (line + 0.5) / lines, 1, 0))

    def close(self) -> None:
        """Close it."""
        self.page.close()
