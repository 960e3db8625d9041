"""A reader of the dashboard, in a browser."""

from __future__ import annotations

import httpx
from playwright.async_api import Page, expect

from tests.e2e.mesh import Mesh


def link(mesh: Mesh) -> str:
    """A new link that signs a browser in."""
    return mesh.pmp("open", "--no-browser").stdout.strip()


def is_ready(mesh: Mesh) -> bool:
    """Whether the gateway and all services answer."""
    try:
        return mesh.client.get(f"{mesh.url}/readyz").is_success
    except httpx.TransportError:
        return False


class Reader:
    """A page of a reader who has signed in, with what it asked for and what the browser complained of."""

    def __init__(self, page: Page, mesh: Mesh) -> None:
        self.page = page
        self.url = mesh.url
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.set_default_timeout(10_000)
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    async def show(self, query: str = "") -> None:
        """Opens a view, and waits until its figures are there."""
        await self.page.goto(f"{self.url}/{query}")
        await self.settled()

    async def settled(self) -> None:
        """Waits until the figures are there."""
        await expect(self.page.locator("h1")).to_be_visible()
        await expect(self.page.locator("[aria-busy=true]")).to_have_count(0)
