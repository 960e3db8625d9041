"""The tracker in a real Chromium, straight to the gateway of a real mesh."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext

from tests.e2e.mesh import Mesh, running
from tests.tracker.shop import TOKENS, Shop, opened


@pytest.fixture
async def direct(tmp_path: Path) -> AsyncGenerator[tuple[Shop, Mesh]]:
    """A shop whose browsers call the gateway themselves."""
    with opened({}) as shop, running(tmp_path / "mesh", environment={"PMP_CORS_ORIGINS": f'["{shop.url}"]'}) as mesh:
        headers = mesh.credentials("track", "42")
        shop.token = headers["authorization"].removeprefix("Bearer ")
        shop.settings |= {"endpoint": f"{mesh.url}/api", "apiKey": headers["x-api-key"], "tokenUrl": TOKENS, "consent": "assumed"}
        yield shop, mesh


async def test_the_mesh_stores_a_browsers_events_once(direct: tuple[Shop, Mesh], visitor: BrowserContext) -> None:
    shop, mesh = direct
    page = await visitor.new_page()
    answered = "() => !Object.keys(localStorage).some((key) => key.startsWith('pmp.q.'))"
    await page.goto(f"{shop.url}/?utm_source=newsletter")
    await page.wait_for_function(answered)
    await page.click("#hero")
    # Refused, without its neighbours.
    await page.evaluate("() => pmp.push({event_type: 'old', timestamp: '1990-01-01T00:00:00Z'})")
    await page.wait_for_function(answered)
    await page.fill("#lead-email", "ada@example.org")
    await page.click("#send")
    await page.wait_for_url("**/thanks**")
    await page.wait_for_function(answered)
    books = mesh.drained()
    # page_view, click; lead_capture, page_leave, page_view
    assert (books["stored"], books["rejected"], books["duplicate"], books["balanced"]) == (5, 1, 0, True)
