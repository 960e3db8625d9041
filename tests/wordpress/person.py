"""What a person does in a shop with a browser."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import BrowserContext, Page, async_playwright

from tests.conftest import CHROMIUM_FLAGS
from tests.wordpress.local import Shop

PERSON = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
"""User agent of a browser; what says that it is headless, the mesh takes for a robot."""


@asynccontextmanager
async def browser(folder: Path) -> AsyncGenerator[BrowserContext]:
    """A person's browser: it keeps its profile when it is closed, and pages that were left in its back/forward cache."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch_persistent_context(
            folder / "profile",
            executable_path="/usr/bin/chromium",
            args=CHROMIUM_FLAGS,
            ignore_default_args=["--disable-back-forward-cache"],
            user_agent=PERSON,
        )
        yield browser
        await browser.close()


async def agrees(page: Page) -> None:
    """Says yes to the banner, which goes."""
    await page.click("[data-pmp-banner] [data-pmp-consent=granted]")
    await page.wait_for_selector("[data-pmp-banner]", state="hidden")


async def answered(page: Page) -> None:
    """Waits until the shop has taken everything that the page reports."""
    await page.wait_for_function("() => !Object.keys(localStorage).some((key) => key.startsWith('pmp.q.'))")


async def reports(page: Page, mark: str) -> None:
    """Has the page report an event of its own, which the shop takes."""
    await page.evaluate("(mark) => pmp.push({event_type: `mark:${mark}`})", mark)
    await page.wait_for_function("() => !pmp.client.getQueuedEvents().some((event) => event.event_type.startsWith('mark:'))")


async def logs_in(page: Page, shop: Shop, name: str) -> None:
    """Logs in as a customer whose password is the name."""
    await page.goto(f"{shop.home}/wp-login.php")
    await page.fill("#user_login", name)
    await page.fill("#user_pass", name)
    await page.click("#wp-submit")
    await page.wait_for_url("**/wp-admin/**")


async def logs_out(page: Page, shop: Shop) -> None:
    """Logs out, and confirms it."""
    await page.goto(f"{shop.home}/wp-login.php?action=logout")
    await page.click("a[href*=logout]")
    await page.wait_for_url("**/wp-login.php?*loggedout*")
