"""A real Chromium, and visitors that know nothing of each other."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from playwright.async_api import Browser, BrowserContext, async_playwright

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP shop.example 127.0.0.1",
]


@pytest.fixture(scope="session")
async def chromium() -> AsyncGenerator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=_FLAGS)
        yield browser
        await browser.close()


@pytest.fixture
async def visitor(chromium: Browser) -> AsyncGenerator[BrowserContext]:
    context = await chromium.new_context()
    yield context
    await context.close()
