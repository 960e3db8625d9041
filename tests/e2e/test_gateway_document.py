"""The OpenAPI document and its page, as the gateway serves them to everyone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, ConsoleMessage, Page, expect

from tests.gateway_probe.everything import running_everything
from tests.gateway_probe.processes import Gateway, running_gateway

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = json.loads((ROOT / "docs" / "openapi.json").read_text())
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_everything() as services, running_gateway(tmp_path_factory.mktemp("gateway"), services.port) as gateway:
        yield gateway


def test_everyone_may_read_the_contract(gateway: Gateway) -> None:
    answer = gateway.client.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"], answer.json()) == (200, "application/json", DOCUMENT)
    assert gateway.client.head("/openapi.json").status_code == 200


@pytest.mark.parametrize(
    ("path", "kind"), [("/docs", "text/html"), ("/docs/viewer.js", "text/javascript"), ("/docs/viewer.css", "text/css")]
)
def test_a_page_of_this_host_alone_shows_it(gateway: Gateway, path: str, kind: str) -> None:
    answer = gateway.client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
    assert answer.headers["content-security-policy"] == POLICY
    assert (answer.headers["x-content-type-options"], answer.headers["cache-control"]) == ("nosniff", "no-cache")


@pytest.mark.parametrize(("verb", "path"), [("POST", "/openapi.json"), ("GET", "/docs/index.html"), ("GET", "/docs/../gateway/render.py")])
def test_nothing_else_is_public(gateway: Gateway, verb: str, path: str) -> None:
    assert gateway.client.request(verb, path).status_code in {401, 404}


@pytest.fixture
async def page(gateway: Gateway, visitor: BrowserContext) -> Page:
    """The page in a browser that lets it call nothing but the gateway."""
    page = await visitor.new_page()
    page.set_default_timeout(10_000)
    await page.goto(f"http://{gateway.address}/docs")
    return page


async def test_the_page_shows_each_call_with_its_fields_and_failures(gateway: Gateway, visitor: BrowserContext) -> None:
    page = await visitor.new_page()
    problems: list[ConsoleMessage] = []
    asked: list[str] = []
    page.on("console", lambda problem: problems.append(problem))  # noqa: PLW0108  (playwright takes no builtin)
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(f"http://{gateway.address}/docs")
    calls = page.locator("[data-words]")
    await expect(calls).to_have_count(sum(len(verbs) for verbs in DOCUMENT["paths"].values()))
    await page.get_by_text("/api/v1/events/track").click()
    call = page.locator("#ingestion_TrackEvent")
    for shown in (
        "event_type string, required",
        "ingestion.EventInput",
        "wp-3f2b9c1e-pv-1",
        "at most 32768 bytes",
        "event_id string, required",
    ):
        await expect(call.get_by_text(shown).first).to_be_visible()
    await expect(call.get_by_text("429", exact=True)).to_be_visible()
    assert [problem.text for problem in problems] == []
    assert {re.sub(r"(?<=\d)/.*", "", url) for url in asked} == {f"http://{gateway.address}"}


async def test_a_call_is_found_by_its_words_and_by_its_address(page: Page) -> None:
    await page.get_by_label("Find a call").fill("refund books")
    await expect(page.locator("[data-words]:visible")).to_have_count(1)
    await expect(page.locator("#purchases_RefundPurchase")).to_be_visible()
    await page.goto(f"{page.url}#gdpr_GetConsent")
    await expect(page.locator("#gdpr_GetConsent")).to_be_in_viewport()
    await expect(page.locator("#gdpr_GetConsent").get_by_text("page_size (query)")).to_be_visible()


async def test_the_page_fits_a_phone(page: Page) -> None:
    await page.set_viewport_size({"width": 360, "height": 740})
    await page.get_by_text("/api/v1/purchases/track").click()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
