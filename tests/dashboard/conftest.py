"""A mesh with the figures of a small shop, and a browser that has signed in to its dashboard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Browser, BrowserContext, expect

from tests.dashboard import shop
from tests.dashboard.reader import Reader, link
from tests.e2e.mesh import Mesh, running
from tests.webhooks import with_a_destination


@pytest.fixture(scope="package")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """The mesh. It has a destination that nothing happens for."""
    folder = tmp_path_factory.mktemp("mesh")
    with running(folder, environment=with_a_destination(folder)) as mesh:
        shop.fill(mesh)
        yield mesh


@pytest.fixture(scope="package")
async def session(chromium: Browser, mesh: Mesh) -> AsyncIterator[BrowserContext]:
    """A browser that has signed in."""
    context = await chromium.new_context(locale="en-GB", accept_downloads=True)
    page = await context.new_page()
    await page.goto(link(mesh))
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    await page.close()
    yield context
    await context.close()


@pytest.fixture
async def reader(session: BrowserContext, mesh: Mesh) -> AsyncIterator[Reader]:
    """A new page of that browser."""
    page = await session.new_page()
    await page.set_viewport_size({"width": 1440, "height": 900})
    yield Reader(page, mesh)
    await page.close()
