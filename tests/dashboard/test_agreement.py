"""The dashboard says whether the ledger agrees with the shop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from playwright.async_api import Browser, expect

from tests.dashboard.reader import Reader, link
from tests.e2e.mesh import Mesh

COMPARED_AT = datetime.now(UTC).replace(microsecond=0)
AGREES = "Agrees with the shop, checked at"


def compared(mesh: Mesh, seconds: int, *, found: int, different: int) -> None:
    """Adds a comparison that ended so many seconds after the others."""
    at = COMPARED_AT + timedelta(seconds=seconds)
    body = {
        "shop": "woocommerce",
        "checked_at": at.isoformat(),
        "from": (at - timedelta(days=90)).isoformat(),
        "to": at.isoformat(),
        "orders": 1204,
        "found": found,
        "different": different,
    }
    assert mesh.client.post(f"{mesh.url}/api/v1/comparisons", headers=mesh.credentials("admin"), json=body).is_success


async def test_a_ledger_that_was_never_compared_claims_nothing(reader: Reader) -> None:
    await reader.show()
    await expect(reader.page.locator("[data-figure=net_revenue]")).to_be_visible()
    await expect(reader.page.locator("[data-agreement]")).to_have_count(0)


async def test_the_newest_comparison_is_shown(reader: Reader, mesh: Mesh, chromium: Browser) -> None:
    compared(mesh, 1, found=3, different=0)
    for view in ("overview", "health"):
        await reader.show(f"?view={view}")
        await expect(reader.page.locator("[data-agreement]")).to_contain_text(AGREES)
    await expect(reader.page.get_by_role("region", name="Agreement with the shop").get_by_role("row")).to_contain_text(["1,204", "3", "0"])
    compared(mesh, 2, found=3, different=2)
    await reader.show()
    await expect(reader.page.locator("[data-agreement]")).to_contain_text("2 orders differ from the shop's, checked at")
    german = await chromium.new_context(locale="de-DE")
    page = await german.new_page()
    await page.goto(link(mesh))
    await expect(page.locator("[data-agreement]")).to_contain_text("2 Bestellungen weichen vom Shop ab, geprüft am")
    await german.close()
    compared(mesh, 3, found=1, different=1)
    await reader.show("?view=health")
    await expect(reader.page.locator("[data-agreement]")).to_contain_text("1 order differs from the shop's")
    await expect(reader.page.get_by_text("pmp reconcile woocommerce")).to_be_visible()
