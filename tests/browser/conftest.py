"""A real browser in front of a real TensorBoard."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.page import Page
from tests.browser.recordings import (
    tear,
    train_examples,
    write_bad,
    write_huge,
    write_known,
    write_spike,
    write_turns,
    write_twice,
)
from tests.tensorboard.serving import serving

#: No sandbox, since CI runs as root; nothing that talks to the world by itself.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
#: `.ci/run` sets it: there, a missing browser is a failure.
REQUIRED = "GRADWATCH_BROWSER_REQUIRED"


def _miss(reason: str) -> None:
    if os.environ.get(REQUIRED):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A browser context with an empty profile; skips where there is no browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _miss("no Playwright: it is in the extra `development` of setup.cfg")
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        _miss("no Chromium: apt-get install chromium, or .ci/browser")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=found, headless=True, args=FLAGS
        )
        context.set_default_timeout(15_000)
        yield context
        context.close()


@pytest.fixture(scope="session")
def logs(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log directory with runs of the examples and with known ones."""
    root = tmp_path_factory.mktemp("logs")
    train_examples(root)
    write_known(root / "known" / "gradwatch")
    write_spike(root / "spike" / "gradwatch")
    write_known(root / "torn" / "gradwatch")
    tear(root / "torn" / "gradwatch")
    write_bad(root)
    write_turns(root / "turns" / "gradwatch")
    write_huge(root / "huge" / "gradwatch")
    write_twice(root / "twice" / "gradwatch")
    return root


@pytest.fixture(scope="session")
def board(logs: Path) -> Iterator[str]:
    """The address of a TensorBoard over `logs`."""
    with serving("--logdir", str(logs)) as address:
        yield address


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Page]]:
    """Opens an address; at the end, nothing may have failed and nobody else been asked."""
    pages: list[Page] = []

    def open_it(address: str, **size: int) -> Page:
        page = Page(browser.new_page(), address, **size)
        pages.append(page)
        return page

    yield open_it
    for page in pages:
        page.close()
        assert page.errors == []
        assert page.strangers == []


@pytest.fixture
def tab(board: str, open_page: Callable[..., Page]) -> Callable[..., Page]:
    """Opens the tab at a state, such as `tab(run="sick/version_0", step=3)`."""

    def open_tab(dark: bool = False, width: int = 1440, **state: Any) -> Page:
        page = open_page(board, width=width)
        page.show(dark=dark, **state)
        return page

    return open_tab
