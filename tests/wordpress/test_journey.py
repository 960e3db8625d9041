"""The brief's journey in a real browser, through a real WordPress into a real mesh: landing page, lead form, prices, purchase."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page

from tests.e2e.mesh import Mesh
from tests.servers import PrivateMariaDb, until
from tests.wordpress.local import Shop, open_shop
from tests.wordpress.privacy_tools import PrivacyTools

pytestmark = pytest.mark.timeout(900)  # the first run downloads WordPress

_PERSON = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
"""User agent of a browser; what says that it is headless, the mesh takes for a robot."""
_BUYER = "2"
"""The first customer of a new site, whose admin is 1."""

Json = dict[str, Any]


@pytest.fixture(scope="module")
def shop(mariadb_server: PrivateMariaDb, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with open_shop(tmp_path_factory.mktemp("shop"), mariadb_server) as shop:
        yield shop


async def test_a_visit_from_the_landing_page_to_the_purchase_is_one_journey(shop: Shop, chromium: Browser) -> None:
    visitor = await chromium.new_context(user_agent=_PERSON)
    page = await visitor.new_page()
    await page.goto(f"{shop.home}/?utm_source=newsletter&utm_medium=email&utm_campaign=spring")
    assert "PMP Course" in await page.title()
    await _agrees(page)
    await _answered(page)
    await page.fill("#lead-email", "test@example.com")
    await page.click("#download-btn")
    await page.wait_for_selector("#lead-thanks")
    await page.click("a[href*=pricing]")
    await page.wait_for_url("**/pricing/")
    await page.click(".btn-primary")
    await page.fill("#billing_first_name", "Ada")
    await page.fill("#billing_last_name", "Lovelace")
    await page.fill("#billing_email", "test@example.com")
    await page.click("#complete-purchase")
    await page.wait_for_selector("#thank-you")
    await _answered(page)

    journey = _journey_with(shop, {"awareness", "interest", "purchase"})
    stages = [stage for stage in journey["stages"] if stage in ("awareness", "interest", "purchase")]
    assert stages == ["awareness", "interest", "purchase"]
    [visit] = journey["sessions"]
    first = journey["touchpoints"][0]
    assert (first["action"], first["page_url"].partition("?")[0]) == ("page_view", f"{shop.home}/"), "seen before anybody knew who it is"
    assert (journey["first_touch"]["source"], journey["first_touch"]["campaign"]) == ("newsletter", "spring")
    [sold] = _purchases(shop)
    assert (sold["paid_amount"], sold["currency"], sold["user_id"]) == (199, "USD", _BUYER)
    shop.mesh.drained()
    told = _events(shop.mesh)
    assert {event["session_id"] for event in told} == {visit["session_id"]}
    assert [event["event_type"] for event in told].count("lead_capture") == 1
    assert f"{shop.home}/pricing/" in [event["page_url"] for event in told if event["event_type"] == "page_view"]

    for _ in range(2):
        await page.reload()
        await page.wait_for_selector("#thank-you")
        await _answered(page)

    def views() -> int:
        shop.deliver()
        return len([event for event in _events(shop.mesh) if event["event_type"] == "page_view" and "order-received" in event["page_url"]])

    until(lambda: views() == 3)
    assert [each["entries"] for each in _purchases(shop)] == [sold["entries"]]
    await visitor.close()


async def test_two_visitors_get_the_same_pages_and_are_told_apart(shop: Shop, chromium: Browser) -> None:
    pages: list[list[bytes]] = []
    sessions: set[str] = set()
    for _ in range(2):
        context = await chromium.new_context(user_agent=_PERSON)
        page = await context.new_page()
        served: list[bytes] = []
        for path in ("/", "/pricing/", "/free-guide/"):
            answer = await page.goto(f"{shop.home}{path}")
            assert answer is not None
            served.append(await answer.body())
            if path == "/":
                await _agrees(page)
            await _answered(page)
        scripts = "performance.getEntriesByType('resource').filter((each) => each.initiatorType === 'script')"
        blocking: list[tuple[str, str]] = await page.evaluate(f"() => {scripts}.map((each) => [each.name, each.renderBlockingStatus])")
        assert len(blocking) > 1
        assert [name for name, status in blocking if status == "blocking"] == []
        pages.append(served)
        sessions |= {cookie.get("value", "") for cookie in await context.cookies() if cookie.get("name") == "pmp_session"}
        await context.close()
    assert pages[0] == pages[1]
    assert len(sessions) == 2

    def known() -> set[str]:
        shop.deliver()
        return {event["session_id"] for event in _events(shop.mesh) if event["event_type"] == "view_pricing"}

    until(lambda: sessions <= known())


def test_wordpress_shows_and_erases_what_the_mesh_holds_which_tells_wordpress_of_the_erasure(shop: Shop) -> None:
    buyer = {"billing_first_name": "Eve", "billing_last_name": "Holt", "billing_email": "eve@example.com", "product_id": "101"}
    [order] = re.findall(r"(\d+)", shop.visitor.post("/checkout/", data=buyer).headers["location"].removeprefix(shop.home))

    def sold() -> list[tuple[str, bool]]:
        """Whose the order is in the mesh, and whether nobody knows the address."""
        shop.deliver()
        return [
            row[1:] for row in _rows(shop.mesh, "purchases", "SELECT order_id, subject, email IS NULL FROM purchases") if row[0] == order
        ]

    until(sold)
    [(subject, _)] = sold()

    tools = PrivacyTools(shop.visitor)
    shown = {
        group: {row["name"]: row["value"] for item in items for row in item} for group, items in tools.export("eve@example.com").items()
    }
    assert shown["pmp-analytics-mesh-wordpress_data"]["email"] == "eve@example.com"
    assert shown["pmp-analytics-mesh-purchase_history"]["order_id"] == order

    [said] = tools.erase("eve@example.com")

    [request] = re.findall(r"[0-9a-f-]{36}", said)
    steps = {step["name"]: step for step in _get(shop.mesh, f"gdpr/requests/{request}").json()["request"]["steps"]}
    assert (steps["call wordpress"]["state"], steps["call wordpress"]["failures"]) == ("done", 0)
    [(pseudonym, is_forgotten)] = sold()
    assert (subject.partition(":")[0], pseudonym.partition(":")[0], bool(is_forgotten)) == ("wordpress", "erased", True)
    assert _rows(shop.mesh, "gdpr", "SELECT count(*) FROM subject_requests WHERE kind = 'erasure'") == [(1,)], (
        "neither side sets off the other again"
    )


async def _agrees(page: Page) -> None:
    """Says yes to the banner, which goes."""
    await page.click("[data-pmp-banner] [data-pmp-consent=granted]")
    await page.wait_for_selector("[data-pmp-banner]", state="hidden")


async def _answered(page: Page) -> None:
    """Waits until the shop has taken everything that the page tells."""
    await page.wait_for_function("() => !Object.keys(localStorage).some((key) => key.startsWith('pmp.q.'))")


def _get(mesh: Mesh, path: str, scope: str = "site", **query: str) -> httpx.Response:
    return mesh.client.get(f"{mesh.url}/api/v1/{path}", params=query, headers=mesh.credentials(scope, "1"))


def _journey_with(shop: Shop, stages: set[str]) -> Json:
    """The buyer's journey, once it has these stages."""
    journey: Json = {}

    def reached() -> bool:
        shop.deliver()
        answer = _get(shop.mesh, f"users/{_BUYER}/journey")
        journey.update(answer.json())
        return answer.status_code == 200 and stages <= set(journey["stages"])

    until(reached, 60)
    return journey


def _purchases(shop: Shop) -> list[Json]:
    return _get(shop.mesh, "purchases", "read", user_id=_BUYER).json()["purchases"]


def _rows(mesh: Mesh, service: str, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{mesh.data}/{service}.db?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


def _events(mesh: Mesh) -> list[Json]:
    rows = _rows(mesh, "ingestion", "SELECT event_type, session_id, page_url FROM events ORDER BY timestamp, id")
    return [dict(zip(("event_type", "session_id", "page_url"), row, strict=True)) for row in rows]
