"""The brief's journey in a real browser, through a real WordPress into a real mesh: landing page, lead form, prices, purchase."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pymysql
import pytest
from playwright.async_api import Browser, Page

from tests.e2e.mesh import Mesh
from tests.relay import Relay, relaying
from tests.servers import PrivateMariaDb, until
from tests.variants import long_test
from tests.wordpress.local import Shop, open_shop
from tests.wordpress.person import PERSON, agrees, answered, browser, logs_in, logs_out, reports
from tests.wordpress.privacy_tools import PrivacyTools
from tests.wordpress.sites import HERE, add_customer, program, run

pytestmark = pytest.mark.timeout(900)  # the first run downloads WordPress

_COLLECTING = re.compile(rb"POST /wp-json/pmp/v1/(collect|notes) ")
_BUYER = "2"
"""The first customer of a new site, whose admin is 1."""

Json = dict[str, Any]


@pytest.fixture(scope="module")
def front() -> Iterator[Relay]:
    """What browsers reach the shop through."""
    with relaying() as relay:
        yield relay


@pytest.fixture(scope="module")
def gateway() -> Iterator[Relay]:
    """What the shop reaches the mesh through."""
    with relaying() as relay:
        yield relay


@pytest.fixture(scope="module")
def shop(front: Relay, gateway: Relay, mariadb_server: PrivateMariaDb, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with open_shop(tmp_path_factory.mktemp("shop"), mariadb_server, front, gateway) as shop:
        yield shop


async def test_a_visit_from_the_landing_page_to_the_purchase_is_one_journey(shop: Shop, chromium: Browser) -> None:
    visitor = await chromium.new_context(user_agent=PERSON)
    page = await visitor.new_page()
    await page.goto(f"{shop.home}/?utm_source=newsletter&utm_medium=email&utm_campaign=spring")
    assert "PMP Course" in await page.title()
    await agrees(page)
    await answered(page)
    await page.fill("#lead-email", "test@example.com")
    await page.click("#download-btn")
    await page.wait_for_selector("#lead-thanks")
    await page.click("a[href*=pricing]")
    await page.wait_for_url("**/pricing/")
    await page.click(".btn-primary")
    await page.fill("#billing_first_name", "Ada")
    await page.fill("#billing_last_name", "Lovelace")
    await page.fill("#billing_email", "test@example.com")
    # The time of an order is in whole seconds: in the second of the lead it would come before it.
    await page.wait_for_timeout(1100)
    await page.click("#complete-purchase")
    await page.wait_for_selector("#thank-you")
    await answered(page)

    journey = _journey_with(shop, {"awareness", "interest", "purchase"})
    stages = [stage for stage in journey["stages"] if stage in ("awareness", "interest", "purchase")]
    assert stages == ["awareness", "interest", "purchase"]
    [session] = journey["sessions"]
    first = journey["touchpoints"][0]
    assert (first["action"], first["page_url"].partition("?")[0]) == ("page_view", f"{shop.home}/"), "seen before anybody knew who it is"
    assert (journey["first_touch"]["source"], journey["first_touch"]["campaign"]) == ("newsletter", "spring")
    [sold] = _purchases(shop)
    assert (sold["paid_amount"], sold["currency"], sold["user_id"]) == (199, "USD", _BUYER)
    shop.mesh.drained()
    events = _events(shop.mesh)
    assert {event["session_id"] for event in events} == {session["session_id"]}
    assert [event["event_type"] for event in events].count("lead_capture") == 1
    assert f"{shop.home}/pricing/" in [event["page_url"] for event in events if event["event_type"] == "page_view"]

    for _ in range(2):
        await page.reload()
        await page.wait_for_selector("#thank-you")
        await answered(page)

    def views() -> int:
        shop.deliver()
        return len([event for event in _events(shop.mesh) if event["event_type"] == "page_view" and "order-received" in event["page_url"]])

    until(lambda: views() == 3)
    assert [each["entries"] for each in _purchases(shop)] == [sold["entries"]]
    await visitor.close()


async def test_two_visitors_get_the_same_pages_and_are_distinguished(shop: Shop, chromium: Browser) -> None:
    pages: list[list[bytes]] = []
    sessions: set[str] = set()
    for _ in range(2):
        context = await chromium.new_context(user_agent=PERSON)
        page = await context.new_page()
        served: list[bytes] = []
        for path in ("/", "/pricing/", "/free-guide/"):
            answer = await page.goto(f"{shop.home}{path}")
            assert answer is not None
            served.append(await answer.body())
            if path == "/":
                await agrees(page)
            await answered(page)
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


def test_wordpress_exports_and_erases_the_data_of_the_mesh_which_calls_wordpress(shop: Shop) -> None:
    buyer = {"billing_first_name": "Eve", "billing_last_name": "Holt", "billing_email": "eve@example.com", "product_id": "101"}
    [order] = re.findall(r"(\d+)", shop.visitor.post("/checkout/", data=buyer).headers["location"].removeprefix(shop.home))

    def sold() -> list[tuple[str, bool]]:
        """The user of the order in the mesh, and whether its address is unknown."""
        shop.deliver()
        return [
            row[1:] for row in _rows(shop.mesh, "purchases", "SELECT order_id, subject, email IS NULL FROM purchases") if row[0] == order
        ]

    until(sold)
    [(subject, _)] = sold()
    until(lambda: (subject,) in _rows(shop.mesh, "identity", "SELECT subject FROM user_orders"))

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


async def test_a_repetition_is_the_same_event_whatever_carries_it(shop: Shop, front: Relay, gateway: Relay, tmp_path: Path) -> None:
    customer = add_customer(shop.site, "grace")
    gateway.delay = 0.5
    before = shop.mesh.books()

    async with browser(tmp_path) as visitor:
        page = visitor.pages[0]
        await visitor.set_extra_http_headers({"x-forwarded-for": "198.51.100.7"})
        await page.goto(f"{shop.home}/?utm_source=newsletter&utm_campaign=spring")
        await agrees(page)
        await reports(page, "landed")
        await page.goto(f"{shop.home}/pricing/")
        await page.go_back(wait_until="commit")
        assert await page.evaluate("() => performance.getEntriesByType('navigation')[0].type") == "navigate", "from the back/forward cache"
        await reports(page, "came-back")

        await _reports_unheard(page, "stranger", shop, front)
        await logs_in(page, shop, "grace")
        # The outbox has an event once: a repetition from before the login that still waited there would stand for the next one.
        shop.deliver()
        await visitor.set_extra_http_headers({"x-forwarded-for": "203.0.113.9"})
        front.loses = None
        await page.goto(f"{shop.home}/free-guide/")
        await reports(page, "logged-in")

        gateway.is_open = False
        tab = await visitor.new_page()
        await tab.goto(f"{shop.home}/pricing/")
        await asyncio.gather(reports(page, "first-tab"), reports(tab, "second-tab"))
        shop.deliver()
        await tab.close(run_before_unload=True)
        gateway.is_open = True

        await _reports_unheard(page, "customer", shop, front)
        await logs_out(page, shop)
        front.loses = None
        await page.goto(f"{shop.home}/")
        await reports(page, "logged-out")
        await _reports_unheard(page, "closed", shop, front)

    front.loses = None
    async with browser(tmp_path) as visitor:
        page = visitor.pages[0]
        # What a page left over a minute ago is adopted by the next page.
        await page.add_init_script("{ const now = Date.now; Date.now = () => now() + 120_000; }")
        await page.goto(f"{shop.home}/")
        await reports(page, "opened-again")
        await answered(page)

    until(lambda: "opened-again" in _marks(shop))
    after = shop.mesh.drained()
    first, second, own = "198.51.100.0", "203.0.113.0", "127.0.0.0"
    assert _marks(shop) == {
        "landed": [(None, first)],
        "came-back": [(None, first)],
        "stranger": [(customer, first)],
        "logged-in": [(customer, second)],
        "first-tab": [(customer, second)],
        "second-tab": [(customer, second)],
        "customer": [(customer, second)],
        "logged-out": [(None, second)],
        "closed": [(None, second)],
        "opened-again": [(None, own)],
    }
    assert after["balanced"]
    assert after["duplicate"] - before["duplicate"] >= len(["stranger", "customer", "closed"])
    assert "None of ingestion's messages waits" in shop.mesh.pmp("dead-letters", "list", "ingestion").stdout


@long_test
def test_an_account_and_the_mesh_end_up_the_same_though_an_answer_is_lost(shop: Shop, front: Relay) -> None:
    account = add_customer(shop.site, "mary")

    def write(key: str, value: str) -> None:
        run([program("php"), HERE / "account.php"], shop.site, PMP_CUSTOMER=account, PMP_KEY=key, PMP_VALUE=value)

    def meta() -> dict[str, str]:
        return _user_meta(shop, account)

    def books() -> Json:
        # None is listed before the service has begun.
        found = _get(shop.mesh, "destinations", "read").json()["destinations"]
        return found[0]["books"] if found else {}

    def ends_with(**expected: str) -> None:
        def is_settled() -> bool:
            shop.deliver()
            known = books()
            return bool(known) and not int(known.get("pending", 0)) and meta().items() >= expected.items()

        until(is_settled, 60)

    def in_mesh() -> Json:
        answer = _get(shop.mesh, f"users/{account}")
        return answer.json()["user"] if answer.status_code == 200 else {}

    ends_with(pmp_user_type="prospect", pmp_segment="prospect", pmp_paid_orders="0")

    # The site applies a call, and its answer is lost: the call is repeated.
    front.loses = re.compile(rb"POST /wp-json/pmp/v1/users ")
    lost = front.lost
    now = datetime.now(UTC).isoformat()
    order = {"id": "mary-1", "order_id": "9001", "user_id": account, "amount": 199, "currency": "USD", "payment_status": "completed"}
    order |= {"timestamp": now, "payment_method": "card", "lines": [{"product_id": "1", "product_name": "PMP", "amount": 199}]}
    _send(shop.mesh, "POST", "purchases/track", order)
    until(lambda: front.lost > lost)
    front.loses = None
    ends_with(pmp_user_type="customer", pmp_lifetime_value="199", pmp_currency="USD")

    # What the site owns reaches the mesh; what another system writes there does not stay.
    write("first_name", "Mary")
    until(lambda: (shop.deliver(), in_mesh().get("first_name") == "Mary")[1], 60)
    written = {"first_name": "Maria", "updated_at": datetime.now(UTC).isoformat()}
    _send(shop.mesh, "PATCH", f"users/{account}", written)
    until(lambda: (shop.deliver(), in_mesh()["first_name"] == "Mary" and _conflicts(shop, account))[1], 60)
    # What the mesh owns stays as it is.
    write("pmp_user_type", "vip")
    assert meta()["pmp_user_type"] == "customer"
    until(lambda: (shop.deliver(), len(_conflicts(shop, account)) > 1)[1], 60)
    assert _conflicts(shop, account) == {("first_name", "Mary", "Maria", "wordpress"), ("user_type", "vip", "customer", "mesh")}

    # The newest choice counts on both sides.
    write("pmp_marketing_emails", "granted")
    choices = f"users/{account}/consent"
    until(lambda: (shop.deliver(), _get(shop.mesh, choices).json()["consent"]["marketing_emails"]["state"] == "granted")[1], 60)
    _send(shop.mesh, "PUT", choices, {"marketing_emails": False})
    ends_with(pmp_marketing_emails="denied", first_name="Mary")
    assert int(books().get("dead_lettered", 0)) == 0
    assert "Maria" in shop.mesh.pmp("destinations", "conflicts", "--user", account).stdout

    _send(shop.mesh, "POST", "users/erase", {"id": account})
    until(lambda: not [key for key in meta() if key.startswith("pmp_")], 60)


def _send(mesh: Mesh, method: str, path: str, body: Json) -> None:
    answer = mesh.client.request(method, f"{mesh.url}/api/v1/{path}", json=body, headers=mesh.credentials("site", "1"))
    assert answer.status_code == 200, answer.text


def _user_meta(shop: Shop, account: str) -> dict[str, str]:
    """The user meta of an account as the site's database has it."""
    config = (shop.site / "wp-config.php").read_text()
    [(database, port)] = re.findall(r"'DB_NAME', '(\w+)'.*'DB_HOST', '127\.0\.0\.1:(\d+)'", config, re.DOTALL)
    with (
        pymysql.connect(host="127.0.0.1", port=int(port), user="mesh", password="mesh", database=database) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT meta_key, meta_value FROM wp_usermeta WHERE user_id = %s", [account])
        return dict(cursor.fetchall())


def _conflicts(shop: Shop, account: str) -> set[tuple[str, ...]]:
    listed = _get(shop.mesh, "conflicts", "admin", user_id=account).json().get("conflicts", [])
    found: list[Json] = [each["conflict"] for each in listed]
    return {tuple(each.get(name, "") for name in ("field", "site_value", "mesh_value", "kept")) for each in found}


async def _reports_unheard(page: Page, mark: str, shop: Shop, front: Relay) -> None:
    """The same, but the page never hears the answer, while the mesh gets the event: it is going to be repeated."""
    lost, front.loses = front.lost, _COLLECTING
    await page.evaluate("(mark) => pmp.push({event_type: `mark:${mark}`})", mark)
    until(lambda: front.lost > lost and mark in _marks(shop))


def _marks(shop: Shop) -> dict[str, list[tuple[str | None, str]]]:
    """Who reported what from which network, once for each time that the mesh has it."""
    shop.deliver()
    marks: dict[str, list[tuple[str | None, str]]] = {}
    query = "SELECT event_type, user_id, event_data ->> '$.ip_address' FROM events WHERE event_type LIKE 'mark:%'"
    for event_type, *carrier in _rows(shop.mesh, "ingestion", query):
        marks.setdefault(event_type.removeprefix("mark:"), []).append(tuple(carrier))
    return marks


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
