"""The dashboard's view of what happens now, on a real mesh: the session's cookie opens its streams."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread
from time import monotonic
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page, expect

from tests.dashboard.reader import Reader, is_ready, link
from tests.e2e.mesh import Mesh
from tests.e2e.streams import DASHBOARD, EVENTS, page_view
from tests.servers import until

_numbers = count(1)
CONNECTED = "Connected: everything shows within a second."
LOST = "Connection lost, reconnecting …"
PERSONAL = {"user_id": "4711", "session_id": "a-session-of-ann", "page_title": "Welcome back, Ann"}


@pytest.fixture
async def shop(mesh: Mesh) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=mesh.url, headers=mesh.credentials("site"), timeout=30) as client:
        yield client


@pytest.fixture
async def live(reader: Reader) -> Reader:
    """A reader of the view, connected."""
    await reader.show("?view=live")
    await expect(reader.page.locator(".connection")).to_have_text(CONNECTED)
    await expect(reader.page.locator("[data-figure=orders_today] .value")).to_have_text(re.compile(r"^\d+$"))
    return reader


async def happens(shop: httpx.AsyncClient, **fields: object) -> str:
    """Sends an event of a course page that only it is about; returns the page's path."""
    path = f"/live/{next(_numbers)}"
    answer = await shop.post(
        "/api/v1/events/track",
        json=page_view(f"live{path.replace('/', '-')}", page_url=f"https://shop.example{path}?utm_source=letter", **fields),
    )
    assert answer.is_success, answer.text
    return path


async def order(shop: httpx.AsyncClient, **fields: object) -> str:
    """Sends a paid order; returns its number."""
    number = f"live-{next(_numbers)}"
    lines = [{"product_id": "201", "product_name": "PMP exam preparation", "product_type": "course", "quantity": 1, "amount": 150}]
    paid = {"amount": 150, "currency": "CHF", "payment_status": "completed", "payment_method": "card", "user_id": "4711", "lines": lines}
    answer = await shop.post("/api/v1/purchases/track", json={"order_id": number, "timestamp": page_view(0)["timestamp"], **paid, **fields})
    assert answer.is_success, answer.text
    return number


def row(page: Page, table: str, name: str) -> Any:
    """The row with a text in a table."""
    return page.get_by_role("region", name=table).get_by_role("row").filter(has=page.get_by_text(name, exact=True))


async def test_an_order_shows_within_a_second_without_reload(live: Reader, shop: httpx.AsyncClient) -> None:
    page = live.page
    before = int(await page.locator("[data-figure=orders_today] .value").inner_text())
    asked = len(live.asked)
    began = monotonic()
    number = await order(shop)
    shown = row(page, "Newest orders", number)
    await expect(shown).to_be_visible(timeout=1000 * (1 - monotonic() + began))
    await expect(shown.get_by_role("cell")).to_have_text(["CHF\u00a0150.00", "Paid", "PMP exam preparation", number])
    await expect(page.locator("[data-figure=orders_today] .value")).to_have_text(str(before + 1))
    await expect(page.locator("[data-figure=revenue_today] .value")).to_contain_text("CHF\u00a0")
    await expect(page.get_by_role("status").first).to_have_text("One new order.")
    assert live.asked[asked:] == []
    assert live.complaints == []


async def test_an_event_shows_without_anything_personal(live: Reader, shop: httpx.AsyncClient) -> None:
    path = await happens(shop, **PERSONAL, metadata={"course_id": "pmp"})
    shown = row(live.page, "Newest events", path)
    await expect(shown.get_by_role("cell")).to_have_text(["Page view", path, "pmp", "letter"])
    await expect(row(live.page, "Pages of the last five minutes", path)).to_be_visible()
    await order(shop)
    content = await live.page.content()
    assert [value for value in PERSONAL.values() if value in content] == []


async def test_an_order_that_changes_is_shown_once(live: Reader, shop: httpx.AsyncClient) -> None:
    number = await order(shop, payment_status="pending")
    shown = row(live.page, "Newest orders", number)
    await expect(shown).to_contain_text("Not paid yet")
    answer = await shop.post(
        f"/api/v1/purchases/{number}/status", json={"payment_status": "completed", "timestamp": page_view(0)["timestamp"]}
    )
    assert answer.is_success, answer.text
    await expect(shown).to_contain_text("Paid")
    await expect(shown).to_have_count(1)


async def test_it_can_be_paused(live: Reader, shop: httpx.AsyncClient) -> None:
    page = live.page
    await page.get_by_role("button", name="Pause").press("Enter")
    path = await happens(shop)
    await expect(page.locator(".connection")).to_have_text("Paused. New since then: 1.")
    await expect(row(page, "Newest events", path)).to_have_count(0)
    await page.get_by_role("button", name="Resume").press("Enter")
    await expect(row(page, "Newest events", path)).to_be_visible()
    await expect(page.locator(".connection")).to_have_text(CONNECTED)


async def turn(page: Page, visibility: str) -> None:
    """Hides the page as another tab does, or shows it again."""
    await page.evaluate(
        "(state) => { Object.defineProperty(document, 'visibilityState', {value: state, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        visibility,
    )


async def test_a_hidden_page_reads_nothing_and_goes_on_where_it_was(live: Reader, shop: httpx.AsyncClient) -> None:
    page = live.page
    first = await happens(shop)
    await expect(row(page, "Newest events", first)).to_be_visible()
    await turn(page, "hidden")
    meanwhile = await happens(shop)
    await page.wait_for_timeout(700)
    await expect(row(page, "Newest events", meanwhile)).to_have_count(0)
    await turn(page, "visible")
    await expect(row(page, "Newest events", meanwhile)).to_be_visible()
    await expect(row(page, "Newest events", first)).to_be_visible()
    assert [url for url in live.asked if EVENTS in url and "since=" in url]
    assert live.complaints == []


async def test_without_the_gateway_it_says_so_and_comes_back(live: Reader, shop: httpx.AsyncClient, mesh: Mesh) -> None:
    page = live.page
    await expect(page.get_by_text("None since").first).to_be_visible()
    mesh.kill("gateway")
    await expect(page.locator(".connection")).to_have_text(LOST)
    until(lambda: is_ready(mesh))
    path = await happens(shop)
    await expect(page.locator(".connection")).to_have_text(CONNECTED, timeout=20_000)
    await expect(row(page, "Newest events", path)).to_be_visible()


async def test_a_session_that_has_ended_leads_to_the_sign_in(chromium: Browser, mesh: Mesh) -> None:
    context = await chromium.new_context()
    page = await context.new_page()
    await page.goto(link(mesh).replace("/#", "/?view=live#"))
    await expect(page.locator(".connection")).to_have_text(CONNECTED)
    await context.clear_cookies()
    await turn(page, "hidden")
    await turn(page, "visible")
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await context.close()


WEB_SOCKET = """(url) => new Promise((done) => {
    const socket = new WebSocket(url.replace('http', 'ws'));
    socket.onmessage = (event) => done(event.data);
    socket.onclose = (event) => done(event.code);
})"""
EVENT_SOURCE = """(url) => new Promise((done) => {
    const source = new EventSource(url, {withCredentials: true});
    source.onmessage = (event) => { source.close(); done(event.data); };
    source.onerror = () => done(source.readyState);
})"""
CLOSED = 2
ABNORMAL = 1006


@pytest.fixture
def other_origin() -> Iterator[str]:
    """A page on another port of the gateway's host: of its site, so that a browser sends the cookie, but of another origin."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("content-type", "text/html")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
            """Logs nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        serving.join()


@pytest.mark.parametrize("path", [EVENTS, DASHBOARD])
async def test_a_page_of_another_origin_gets_no_stream_with_the_cookie(reader: Reader, other_origin: str, path: str) -> None:
    page, url = reader.page, f"{reader.url}{path}"
    await page.goto(f"{reader.url}/openapi.json")
    assert '"' in await page.evaluate(WEB_SOCKET, url)
    assert '"' in await page.evaluate(EVENT_SOURCE, url)
    await page.goto(other_origin)
    reader.complaints.clear()
    assert await page.evaluate(WEB_SOCKET, url) == ABNORMAL
    assert [each for each in reader.complaints if "Unexpected response code: 403" in each]
    assert await page.evaluate(EVENT_SOURCE, url) == CLOSED
