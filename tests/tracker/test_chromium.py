"""The tracker in a real Chromium, against a small shop that writes down what arrives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import adblock
import protovalidate
import pytest
from google.protobuf import json_format
from playwright.async_api import Browser, BrowserContext, Locator, Page, Route
from pmp.ingestion.v1.ingestion_pb2 import TrackEventsRequest

from tests.tracker.shop import ASK, BATCH, ROUTE, SCRIPT, TOKENS, Event, Shop, opened

FIRST_PARTY: dict[str, Any] = {"route": ROUTE, "consent": "assumed"}
LISTS = Path("/usr/share/chromium/extensions/ublock-origin/assets")


@pytest.fixture
def open_shop() -> Iterator[Callable[[dict[str, Any]], Shop]]:
    with ExitStack() as stack:
        enter: Callable[[AbstractContextManager[Shop]], Shop] = stack.enter_context
        yield lambda settings: enter(opened(settings))


@pytest.fixture
def shop(open_shop: Callable[[dict[str, Any]], Shop]) -> Shop:
    return open_shop(FIRST_PARTY)


async def come(check: Callable[[], object], seconds: float = 30) -> None:
    """Waits until something is so."""
    async with asyncio.timeout(seconds):
        while not check():  # noqa: ASYNC110 (the shop is another thread's)
            await asyncio.sleep(0.02)


async def quiet(shop: Shop, seconds: float = 1) -> None:
    """Waits until nobody has asked anything of the shop for a while."""
    asked = -1
    while asked != len(shop.asked):
        asked = len(shop.asked)
        await asyncio.sleep(seconds)


async def queue(page: Page) -> list[Event]:
    stored: dict[str, str] = await page.evaluate("() => ({...localStorage})")
    return [json.loads(value) for key, value in sorted(stored.items()) if key.startswith("pmp.q.")]


async def answered(page: Page) -> None:
    """Waits until the mesh has answered for everything."""
    await page.wait_for_function("() => !Object.keys(localStorage).some((key) => key.startsWith('pmp.q.'))")


async def stored(page: Page) -> list[str]:
    return await page.evaluate("() => [...Object.keys(localStorage), ...Object.keys(sessionStorage)]")


def once(events: list[Event]) -> bool:
    return len({event["id"] for event in events}) == len(events)


async def test_a_page_view_arrives_once(shop: Shop, visitor: BrowserContext) -> None:
    page = await visitor.new_page()
    await page.goto(f"{shop.url}/courses/pmp?utm_source=newsletter&utm_campaign=spring", referer="https://www.google.com/")
    await come(lambda: shop.received)
    await quiet(shop)
    [event] = shop.received
    assert event["page_url"].startswith(f"{shop.url}/courses/pmp?")
    assert event["page_title"] == "/courses/pmp"
    assert event["referrer"] == "https://www.google.com/"
    assert event["utm_parameters"] == {"source": "newsletter", "campaign": "spring"}
    cookies = {cookie.get("name"): cookie.get("value", "") for cookie in await visitor.cookies()}
    assert cookies.pop("pmp_session") == event["session_id"]
    assert json.loads(unquote(cookies.pop("pmp_landing"))) == {**event["utm_parameters"], "referrer": event["referrer"]}
    assert cookies == {}


async def test_a_page_loads_one_file_that_blocks_nothing(shop: Shop, visitor: BrowserContext) -> None:
    page = await visitor.new_page()
    await page.goto(shop.url)
    await come(lambda: shop.received)
    assert [path for method, path in shop.asked if method == "GET" and path != "/favicon.ico"] == ["/", f"{SCRIPT}?ver=1"]
    blocking = await page.evaluate("() => performance.getEntriesByType('resource').map((entry) => entry.renderBlockingStatus)")
    assert "blocking" not in blocking


async def test_two_visitors_get_the_same_page_and_are_distinguished(shop: Shop, chromium: Browser) -> None:
    for _ in range(2):
        context = await chromium.new_context()
        page = await context.new_page()
        known = len(shop.received)
        await page.goto(shop.url)
        await come(lambda known=known: len(shop.received) > known)
        await context.close()
    first, second = shop.only("page_view")
    assert len(shop.pages["/"]) == 1
    assert first["session_id"] != second["session_id"]
    assert first["metadata"]["visitor_id"] != second["metadata"]["visitor_id"]


async def test_a_session_through_the_shop_is_reported_once(shop: Shop, visitor: BrowserContext) -> None:
    page = await visitor.new_page()
    await page.goto(shop.url)
    await come(lambda: shop.received)
    await page.click("#hero")
    await page.mouse.wheel(0, 1500)
    await page.wait_for_timeout(500)
    await answered(page)
    await page.click("#pricing")
    await come(lambda: shop.types()["page_view"] == 2)
    await answered(page)
    await page.fill("#lead-email", "ada@example.org")
    await page.click("#send")
    await come(lambda: shop.types()["page_view"] == 3)
    await quiet(shop)
    assert shop.types() == {"page_view": 3, "page_leave": 2, "click": 1, "lead_capture": 1}
    assert once(shop.received)
    assert len({event["session_id"] for event in shop.received}) == 1
    [lead] = shop.only("lead_capture")
    assert lead["email"] == "ada@example.org"
    [home, _] = shop.only("page_leave")
    assert home["metadata"]["scroll_depth"] > 0.4
    assert home["metadata"]["time_on_page"] >= 0.5
    assert await queue(page) == []


async def test_what_the_tracker_sends_is_what_the_mesh_takes(shop: Shop, visitor: BrowserContext) -> None:
    page = await visitor.new_page()
    await page.goto(f"{shop.url}/?utm_source=newsletter&gclid=x")
    await page.click("#hero")
    await page.fill("#lead-email", "ada@example.org")
    await page.click("#send")
    await come(lambda: shop.types()["page_view"] >= 2)
    await page.close()
    await come(lambda: shop.types()["page_leave"] >= 2)
    assert set(shop.types()) == {"page_view", "click", "lead_capture", "page_leave"}
    for body in shop.bodies:
        request = json_format.Parse(body, TrackEventsRequest())
        protovalidate.validate(request)
        for event in request.events:
            protovalidate.validate(event)


async def test_closing_the_tab_hands_over_the_last_events_and_the_next_visit_hears_the_answer(shop: Shop, visitor: BrowserContext) -> None:
    page = await visitor.new_page()
    await page.goto(shop.url)
    await come(lambda: shop.received)
    await answered(page)
    await page.close()
    await come(lambda: shop.types()["page_leave"] == 1)
    page = await visitor.new_page()
    await page.add_init_script("{ const now = Date.now; Date.now = () => now() + 120_000; }")
    await page.goto(f"{shop.url}/pricing")
    await come(lambda: shop.types()["page_view"] == 2)
    await answered(page)
    assert len({event["id"] for event in shop.only("page_leave")}) == 1


@pytest.mark.parametrize("status", [503, 429, 500])
async def test_the_queue_survives_the_page_while_the_mesh_is_away(shop: Shop, visitor: BrowserContext, status: int) -> None:
    shop.status = status
    page = await visitor.new_page()
    await page.goto(shop.url)
    await come(shop.posts)
    await page.click("#hero")
    await page.click("#pricing")
    await page.wait_for_url("**/pricing")
    await come(lambda: len(shop.pages) == 2)
    await quiet(shop)
    assert [event["event_type"] for event in await queue(page)] == ["page_view", "click", "page_leave", "page_view"]
    shop.status = 200
    await come(lambda: len(shop.received) == 4)
    await quiet(shop)
    assert once(shop.received)
    assert await queue(page) == []


async def test_what_happens_offline_arrives_when_the_network_is_back(shop: Shop, visitor: BrowserContext) -> None:
    page = await visitor.new_page()
    await page.goto(shop.url)
    await come(lambda: shop.received)
    await visitor.set_offline(True)
    for _ in range(3):
        await page.click("#hero")
    await page.wait_for_timeout(2500)
    assert shop.types() == {"page_view": 1}
    await visitor.set_offline(False)
    await come(lambda: shop.types()["click"] == 3)
    await quiet(shop)
    assert once(shop.received)


@pytest.mark.parametrize("secure", [True, False], ids=["with TLS", "without TLS"])
async def test_several_tabs_lose_nothing_and_send_nothing_twice(shop: Shop, visitor: BrowserContext, secure: bool) -> None:
    pages = [await visitor.new_page() for _ in range(3)]
    url = shop.url if secure else shop.plain_url
    await asyncio.gather(*(page.goto(url) for page in pages))
    assert await pages[0].evaluate("() => isSecureContext") is secure
    push = "(at) => { for (let n = 0; n < 70; n += 1) pmp.push({event_type: `tab-${at}`}); }"
    await asyncio.gather(*(page.evaluate(push, at) for at, page in enumerate(pages)))
    await come(lambda: len(shop.received) >= 213)
    await quiet(shop)
    assert shop.types() == {"page_view": 3, "tab-0": 70, "tab-1": 70, "tab-2": 70}
    assert once(shop.received)
    assert await queue(pages[0]) == []


async def test_global_privacy_control_is_a_no(shop: Shop, visitor: BrowserContext) -> None:
    await visitor.add_init_script("Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', {get: () => true})")
    page = await visitor.new_page()
    await page.goto(f"{shop.url}/?utm_source=newsletter")
    await page.click("#hero")
    await page.click("#pricing")
    await quiet(shop)
    assert shop.posts() == []
    assert await stored(page) == []
    await page.close()
    await quiet(shop)
    assert shop.posts() == []
    assert await visitor.cookies() == []


async def test_nothing_is_stored_or_sent_before_the_visitor_says_yes(
    open_shop: Callable[[dict[str, Any]], Shop], visitor: BrowserContext
) -> None:
    shop = open_shop({"route": ROUTE, "ask": ASK})
    page = await visitor.new_page()
    await page.goto(f"{shop.url}/?utm_source=newsletter", referer="https://www.google.com/")
    await page.click("#hero")
    await page.click("#pricing")
    await page.wait_for_selector("[data-pmp-banner]:not([hidden])")
    await quiet(shop)
    assert shop.posts() == []
    assert await stored(page) == []
    assert await visitor.cookies() == []
    await page.click("#yes")
    await come(lambda: shop.received)
    assert await page.is_hidden("[data-pmp-banner]")
    [view] = shop.only("page_view")
    assert view["page_title"] == "/pricing"
    assert view["utm_parameters"] == {"source": "newsletter"}


async def test_our_own_banner_moves_nothing_and_is_answered_by_the_keyboard(
    open_shop: Callable[[dict[str, Any]], Shop], visitor: BrowserContext
) -> None:
    shop = open_shop({"route": ROUTE, "ask": ASK})
    shop.has_banner = False
    page = await visitor.new_page()
    await page.add_init_script(
        "new PerformanceObserver((list) => { window.shifts = (window.shifts ?? 0) + list.getEntries().length; })"
        ".observe({type: 'layout-shift', buffered: true})"
    )
    await page.goto(shop.url)
    banner = page.get_by_role("dialog", name="Your privacy choices")
    await banner.wait_for()
    assert await page.evaluate("() => window.shifts ?? 0") == 0
    assert "We <b>count</b> visits. Privacy policy" in await banner.inner_text()
    assert await banner.get_by_role("link").get_attribute("href") == "/privacy"
    yes, no = await banner.get_by_role("button").all()
    assert [round(part, 1) for part in (await box(yes))[2:]] == [round(part, 1) for part in (await box(no))[2:]]
    await page.keyboard.press("Tab")  # the privacy policy
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await come(lambda: shop.received and shop.choices)
    assert await banner.is_hidden()
    assert [(choice["choice"], choice["session_id"]) for choice in shop.choices] == [("granted", shop.received[0]["session_id"])]
    # The other pages know the answer, and load nothing to ask for it.
    known = len(shop.asked)
    await page.click("#pricing")
    await come(lambda: shop.types()["page_view"] == 2)
    assert [path for method, path in shop.asked[known:] if method == "GET" and "ask.js" in path] == []


async def box(locator: Locator) -> list[float]:
    found = await locator.bounding_box()
    assert found
    return [found["x"], found["y"], found["width"], found["height"]]


async def test_a_single_page_theme_is_followed(shop: Shop, visitor: BrowserContext) -> None:
    page = await visitor.new_page()
    await page.goto(shop.url)
    await come(lambda: shop.received)
    await page.evaluate("() => { history.pushState({}, '', '/guide'); document.title = 'Guide'; }")
    await come(lambda: shop.types()["page_view"] == 2)
    await page.evaluate("() => history.replaceState({scroll: 7}, '')")
    await page.go_back()
    await come(lambda: shop.types()["page_view"] == 3)
    await quiet(shop)
    assert [(event["page_title"], event["referrer"]) for event in shop.only("page_view")] == [
        ("/", ""),
        ("Guide", f"{shop.url}/"),
        ("Guide", f"{shop.url}/guide"),
    ]
    assert once(shop.received)


async def test_a_gateway_of_another_origin_is_called_with_a_token(
    open_shop: Callable[[dict[str, Any]], Shop], visitor: BrowserContext
) -> None:
    gateway = open_shop({})
    shop = open_shop({"endpoint": f"{gateway.url}/api", "apiKey": "browser-key", "tokenUrl": TOKENS, "consent": "assumed"})
    page = await visitor.new_page()
    await page.goto(shop.url)
    await come(lambda: gateway.received)
    await answered(page)
    await page.click("#pricing")
    await come(lambda: gateway.types()["page_view"] == 2)
    await answered(page)
    await page.close()
    await come(lambda: gateway.types()["page_leave"] == 2)
    assert shop.posts() == [TOKENS]
    assert set(gateway.posts()) == {BATCH}
    assert once(gateway.received)
    assert "a-token" not in "".join(body.decode() for bodies in shop.pages.values() for body in bodies)


async def test_a_429_of_another_origin_is_obeyed(open_shop: Callable[[dict[str, Any]], Shop], visitor: BrowserContext) -> None:
    gateway = open_shop({})
    gateway.status = 429
    shop = open_shop({"endpoint": f"{gateway.url}/api", "apiKey": "browser-key", "tokenUrl": TOKENS, "consent": "assumed"})
    page = await visitor.new_page()
    await page.goto(shop.url)
    await come(gateway.posts)
    gateway.status = 200
    await come(lambda: gateway.received)
    refused, sent = gateway.posted_at
    assert sent - refused >= 3


async def test_the_client_is_a_module_of_its_own(shop: Shop, visitor: BrowserContext) -> None:
    page = await visitor.new_page()
    await page.goto(shop.url)
    await come(lambda: shop.received)
    answer, queued = await page.evaluate(
        """async ([script, route]) => {
          const {AnalyticsAPIClient} = await import(script);
          const client = new AnalyticsAPIClient({route});
          return [await client.trackEvent({event_type: 'page_view', page_url: 'https://example.com/test'}), client.getQueuedEvents()];
        }""",
        [f"{SCRIPT}?ver=1", ROUTE],
    )
    assert answer == {"success": True, "event_id": shop.received[-1]["id"]}
    assert queued == []


async def test_the_block_lists_let_the_first_party_pass(shop: Shop, visitor: BrowserContext) -> None:
    filters = adblock.FilterSet()
    for name in (
        "thirdparties/easylist/easyprivacy.txt",
        "thirdparties/easylist/easylist.txt",
        "ublock/privacy.min.txt",
        "ublock/filters.min.txt",
    ):
        filters.add_filters((LISTS / name).read_text().splitlines())
    lists = adblock.Engine(filters)
    seen: dict[str, bool] = {}

    def blocked(url: str, kind: str) -> bool:
        return lists.check_network_urls(url, f"{shop.url}/", kind).matched

    async def block(route: Route) -> None:
        request = route.request
        seen[request.resource_type] = blocked(request.url, request.resource_type)
        await (route.abort() if seen[request.resource_type] else route.continue_())

    await visitor.route("**/*", block)
    page = await visitor.new_page()
    await page.goto(shop.url)
    await come(lambda: shop.received)
    assert seen["script"] is False
    assert False in {seen.get("fetch"), seen.get("xhr")}
    assert not blocked(f"{shop.url}{ROUTE}", "ping")
    assert blocked(f"{shop.url}/wp-json/iawp/search", "xmlhttprequest"), "the lists block what they know"
    assert blocked("https://www.google-analytics.com/analytics.js", "script")
