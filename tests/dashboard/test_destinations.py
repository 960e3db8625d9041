"""The dashboard shows the destinations and what became of their deliveries."""

from __future__ import annotations

from playwright.async_api import Browser, expect

from tests.dashboard.reader import Reader, link
from tests.e2e.mesh import Mesh
from tests.servers import until


async def test_health_shows_each_destination_and_whether_it_is_paused(reader: Reader, mesh: Mesh, chromium: Browser) -> None:
    listed = f"{mesh.url}/api/v1/destinations"
    until(lambda: mesh.client.get(listed, headers=mesh.credentials("read")).json()["destinations"])
    await reader.show("?view=health")
    row = reader.page.get_by_role("region", name="Destinations").locator("[data-destination=crm]")
    await expect(row.get_by_role("cell")).to_have_text(["Delivering", "0", "0", "0", "0", "0"])
    mesh.pmp("destinations", "pause", "crm")
    await reader.show("?view=health")
    await expect(row).to_contain_text("Paused")
    german = await chromium.new_context(locale="de-DE")
    page = await german.new_page()
    await page.goto(link(mesh))
    await expect(page.locator("[data-figure=net_revenue]")).to_be_visible()
    await page.goto(f"{mesh.url}/?view=health")
    await expect(page.get_by_role("region", name="Ziele")).to_contain_text("Angehalten")
    await german.close()
    mesh.pmp("destinations", "resume", "crm")
