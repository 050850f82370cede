"""A real browser: Debian's Chromium, driven by Playwright."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

from support.tools import need

ELSEWHERE = "pgbreaker.test"
"""A name by which the browser reaches this machine as if it were another."""

# Without most of these it looks for hosts of its maker's at every start.
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-dev-shm-usage",
    # A name that is not of this machine: browsers keep some things from such pages.
    f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1",
)

# What a browser says of an answer that is no success, and of a page without TLS.
_USUAL = (
    "Failed to load resource",
    "Cross-Origin-Opener-Policy header has been ignored",
)
_PATIENCE = 10_000.0  # milliseconds that anything may take to be seen


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser, for the time of the block."""
    program = need("chromium", "chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program, args=list(_FLAGS)
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def tab(browser: Browser, url: str, **more: Any) -> AsyncIterator[Page]:
    """A tab of a browser that knows nothing yet, which fails when a page complains."""
    context = await browser.new_context(base_url=url, **more)
    try:
        context.set_default_timeout(_PATIENCE)
        page = await context.new_page()
        said = listen(page)
        yield page
        assert not said, said
    finally:
        await context.close()


def listen(page: Page) -> list[str]:
    """What goes wrong on *page*, as it goes wrong: errors of scripts, and whatever the
    page's own policy had to keep out."""
    said: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error" and not any(it in message.text for it in _USUAL):
            said.append(message.text)

    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("console", hear)
    return said


async def violations(page: Page, only: list[str] | None = None) -> list[str]:
    """What axe-core finds wrong with *page* for people who see, hear or point otherwise.

    Args:
        only: Rules to look for. None: all there are.
    """
    found = await Axe().run(page, options=None if only is None else {"runOnly": only})
    return [
        f"{violation['id']}: {violation['help']}: {node['html'][:200]} {node.get('failureSummary', '')}"
        for violation in found.response["violations"]
        for node in violation["nodes"]
    ]


async def is_too_wide(page: Page) -> bool:
    """Whether *page* has to be scrolled sideways."""
    wide: bool = await page.evaluate(
        "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    )
    return wide
